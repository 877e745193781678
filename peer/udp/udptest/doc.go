// Package udptest is an in-memory internet for tests: hosts, lines, NATs, and
// udp.Conns on them. It blocks on channels and timers only, so that whole nodes
// run on it inside a testing/synctest bubble.
//
//	Host ──line──┐
//	             ├── Internet ──line── NAT ──┬──line── Host
//	Host ──line──┘    (a realm)   (a realm)  └──line── NAT ── ...
//
// A realm is where an address means something: the public internet, or the
// inside of one NAT. A datagram crosses the sender's line, is looked up in the
// realm that it reaches, and goes down the line of the host or NAT found there;
// what a NAT's inside does not know goes up through the NAT. IPv4 is translated
// at a NAT; IPv6 keeps its addresses and is only filtered, as home routers do.
//
// What happens is decided by the seed and by the order in which goroutines
// call Send. Make everything inside the bubble, the Internet too.
package udptest
