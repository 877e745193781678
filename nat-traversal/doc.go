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
// # Not here yet
//
// Port mapping (PCP, NAT-PMP, UPnP) will be another source of candidates, of
// kind Mapped, beside Client. Punching needs no code here but the mapping
// behaviour that Client.Result reports: which side sends first is for peer to
// decide. Relays are below sessions, in peer.
package traversal
