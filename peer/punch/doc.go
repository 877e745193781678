// Package punch opens a direct path between two nodes that talk over another way
// already: it says who tells whom what, and who probes where, when. It is a pure
// machine, one for each remote.
//
//	caller                                             callee
//	   | --- call: number, my candidates, my NAT ------> |
//	   | <-- answer: number, my candidates, my NAT ----- |
//	   | probe all of the callee's                       | half a round trip later:
//	   |                                                 | probe all of the caller's
//
// So the first probes of both cross on the way, and each meets a NAT that has
// already let one out (RFC 5128, 3.3). The messages travel inside the session;
// the probes are those of peer/path, within the budget that an address has until
// it has answered (THREATS.md).
//
// A round is begun when the pair begins to lack a direct path, when either
// side's candidates have changed, and again from time to time, ever more seldom.
//
// # Many ports
//
// A NAT that maps each destination to another port hides where probes have to go.
// Facing one whose mapping does not depend on the destination there is a chance:
// the other probes many ports of the hidden side's NAT, which then opens many ports
// towards the other, of which one may be one that was probed (many.go).
// Both sides' numbers are bounded, both have to agree, and they do so once in a
// long while only (docs/adr). Two NATs of that kind stay relayed.
package punch
