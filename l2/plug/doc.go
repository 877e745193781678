// Package plug is where virtual machines and other programs of this host plug into
// the segment without any right: sockets that speak what they speak already.
//
//	vde:DIR      a VDE switch's socket directory: QEMU -netdev vde,sock=DIR, vde_plug vde://DIR
//	stream:PATH  QEMU -netdev stream,addr.type=unix,addr.path=PATH,server=off
//	dgram:PATH   QEMU -netdev dgram,remote.type=unix,remote.path=PATH,local.type=unix,local.path=OTHER
//	Pipe         vde_plug's framing on a pair of streams: dpipe vde_plug = ssh home meshd plug
//
// A Listener waits at one of them; each cable that is plugged in is a Cable, which
// satisfies l2.Device: frames cross it whole, without offloads. Whoever may connect
// to the socket may speak on the segment: sockets are made for their owner alone.
//
// A cable never holds up who writes to it. Where the other end does not take its
// frames, as a stopped virtual machine does not, they are dropped and counted.
package plug
