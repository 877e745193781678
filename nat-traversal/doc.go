// Package traversal answers one question: at which addresses might we be
// reached? It knows nothing of identities, sessions or frames.
//
//	interfaces ──► Gather ──┐
//	                        ├──► []Candidate ──► (mesh: signed record, peer: probes)
//	STUN answers ─► Client ─┘
//	netlink ──────► Watch  ──► "look again"
//	STUN request from a peer ─► Responder ──► answer
//
// A Candidate is a place to try, never a promise: the probe of package peer is
// what proves a path.
//
// Routers that open a port on request are asked by package portmap beneath it;
// package nat64 writes IPv4 addresses for networks that have IPv6 alone. Punching
// and relays are peer's.
package traversal
