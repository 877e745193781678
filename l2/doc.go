// Package l2 answers one question: which port does this frame leave by, and may
// it? It knows Ethernet and nothing of members, keys or UDP.
//
//	     host                           remote members
//	      |                               ^        |
//	Device (TAP)                     Port.Send   RemotePort.Receive
//	      |                               |        |
//	      +--> Switch.Run: guard, learn, look up, cut to the path
//	      |                                        |
//	      +<-- write <-- merge <-- guard by origin, learn
//
// A frame from the device leaves by one port, or by all when its destination is
// broadcast or multicast, or by those behind which silent hosts may be when it is
// unknown (BUM). Hosts that ask who has an address are answered here where that is
// known. A frame from a remote goes to the device
// and never to another remote: split horizon, so no loop can form inside the
// overlay. Both directions run to completion in the goroutine that has the frame;
// nothing is allocated for one.
//
// IP multicast leaves by the ports behind which somebody listens to its group (package
// snoop, groups.go); what hosts find each other by, by all.
//
// What a switch knows of a station comes from four sources: its own address, the
// addresses that Connect was told of (they are pinned and never learned), what remotes
// announce of the stations behind them (whereabouts.go), and the source addresses it
// saw, which age. The first two are read from an immutable snapshot without a lock.
// Announced stations move from one remote to another when the holder yields
// (mobility.go).
//
// Frames and their tags pass byte by byte as they are. Tables are keyed by the
// outermost VLAN identifier (priority tags name none) and the MAC address.
//
// A device may hand over super-frames and take them (package offload). They are
// judged and looked up as one frame each, then cut to what the path to their
// destination takes; what comes from a remote is merged after it has been judged.
//
// Plugs (VDE, QEMU) and a bridged TAP are further local
// origins beside the device: see origin.
package l2
