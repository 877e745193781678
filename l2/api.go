package l2

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

// MAC is an Ethernet address.
type MAC [6]byte

// String formats m as in 02:00:5e:10:00:01.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Multicast reports whether m has its group bit set; broadcast has.
func (m MAC) Multicast() bool { return m[0]&1 != 0 }

// Defaults of Config and Allow.
const (
	DefaultAge        = 5 * time.Minute
	DefaultStormRate  = 300 // BUM frames per second and origin
	DefaultStormBurst = 600
	DefaultMTU        = 1500
	DefaultGroupRate  = 20e6 / 8 // bytes of multicast groups per second and origin
	DefaultMaxMACs    = 32       // stations behind an origin, besides its own address
	BridgeMaxMACs     = 1024     // stations behind an origin that may bridge
)

// Config is what NewSwitch needs. The zero value of a field means its default.
type Config struct {
	Device Device // nil: no TAP; frames from remotes are guarded, learned and dropped
	MAC    MAC    // this node's own address

	// Bridge and MaxMACs are this node's own rights, as in Allow. Frames that
	// its remotes would have to refuse are not sent.
	Bridge  bool
	MaxMACs int

	LAN LANSide // nil: no physical LAN is bridged

	MTU        int           // of the segment; larger frames (tags apart) are dropped
	Age        time.Duration // after which a silent station is forgotten
	StormRate  int           // BUM frames per second, for each origin
	StormBurst int
	GroupRate  int    // bytes per second of multicast groups that somebody listens to, likewise
	Epoch      uint32 // grows with each start
	Logger     *slog.Logger
	Now        func() time.Time

	// GroupsChanged, if set, is called when Groups returns something else. It must not call the switch and not wait.
	GroupsChanged func()
	// Everyone is sent, once, what more than SpreadAbove of the remotes that take copies
	// (Copied) would be sent each: it is for those of them that want it (RemotePort.Wants).
	// nil: they always are.
	Everyone    Port
	SpreadAbove int // 0: DefaultSpreadAbove

	// Observe, if set, is called with router solicitations and advertisements and with
	// requests to DHCPv4 servers that were let pass, and with neighbour solicitations for
	// virtual routers and in watched prefixes (SetRouters), 50 a second of each origin. It must not block,
	// and the frame is valid for the call only. (It is called while the frame's way
	// holds locks: it must not call the switch.)
	Observe func(frame []byte)
}

// Allow is what a remote may do. It is judged at the receiver, on the origin that
// the session has authenticated.
type Allow struct {
	MAC     MAC  // the remote's own address: nobody else may use it. Zero: it has none
	MaxMACs int  // further stations behind it; 0: DefaultMaxMACs, or BridgeMaxMACs with Bridge
	Bridge  bool // it brings hosts of other networks
	Hosts   bool // there may be hosts behind it that have not been heard, as with Bridge: unknown frames go there
	Router  bool // it may send router advertisements and redirects
	DHCP    bool // it may answer as a DHCP server

	// Addresses are the remote's own IP addresses, besides the link-local one that
	// follows from MAC: nobody else may claim them.
	Addresses []netip.Addr
	Segment   Segment  // what it calls the LAN that it bridges
	LAN       string   // the same for all who have agreed that they are on one LAN: they may speak for its stations in turn; "": none
	VLANs     []uint16 // tags it may use, untagged always being allowed; nil: all
}

// How a station became known.
const (
	LearnedOwn    = "own"    // it is this node
	LearnedRecord = "record" // it is a remote's own address, as its records say, or one that the remote has announced
	LearnedData   = "data"   // a frame came from it
)

// Host is one station of the segment.
type Host struct {
	MAC     MAC
	VLAN    uint16        // 0: untagged
	Port    string        // the remote it is behind; "": here
	IPs     []netip.Addr  // read from its ARP and neighbour discovery; the last few
	Learned string        // LearnedOwn, LearnedRecord or LearnedData
	Age     time.Duration // since its last frame
}

// Counters are a switch's totals, by where frames came from.
type Counters struct {
	FromDevice, FromRemotes Flow
}

// Flow counts the frames that came one way. Dropped is by reason; the reasons are
// the Drop constants and all of them are always there.
type Flow struct {
	Frames, Bytes uint64 // that were forwarded
	Dropped       map[string]uint64
}

// Traffic is what crossed the port to one remote.
type Traffic struct {
	RxFrames, RxBytes uint64 // from the remote, forwarded
	TxFrames, TxBytes uint64 // to the remote
}

// Reasons for a drop. They are part of metrics and tests, so they stay as they are.
const (
	DropMalformed         = "malformed"          // no whole Ethernet header, half a tag, or no checksum where one was left out
	DropOversize          = "oversize"           // larger than the segment's MTU
	DropReservedMulticast = "reserved-multicast" // 01:80:c2:00:00:0x never leaves a link (802.1Q 8.6.3)
	DropSourceMulticast   = "source-multicast"
	DropSourceZero        = "source-zero"
	DropSourceMAC         = "source-mac"   // the address of another member, or ours
	DropSourceMoved       = "source-moved" // a station that was just heard elsewhere
	DropSourceLimit       = "source-limit" // the origin has brought as many as it may
	DropVLAN              = "vlan"
	DropStorm             = "storm"
	DropElsewhere         = "elsewhere"    // the destination is known and not on this way
	DropNoListener        = "no-listener"  // a multicast group that nobody listens to
	DropGroupControl      = "igmp-mld"     // between hosts and multicast routers: it stays on its side
	DropDisconnected      = "disconnected" // from, or to, a remote that is no longer there
	DropDevice            = "device"       // the host did not take it, or there is no TAP
	DropHidden            = "hidden"       // what it tells hosts cannot be judged: cut off, fragmented or wrapped
	DropLinkProtocol      = "link-protocol"
	DropSpoofed           = "spoofed"       // ARP or neighbour discovery that speaks for another MAC
	DropRouter            = "router"        // router advertisement or redirect without the role
	DropDHCP              = "dhcp"          // a DHCP server's message without the role
	DropAddress           = "address-taken" // claims the IP address of a member, or of a host that is there
	DropBlocked           = "blocked"       // another member forwards for the LAN behind the device
	DropLoop              = "loop"          // its source is heard on our own side, too: it would come round
)
