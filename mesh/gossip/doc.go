// Package gossip runs memberlist (SWIM with Lifeguard) over control datagrams inside sessions, for hints about who is
// alive. Its verdicts start probes and reorder work; nothing is ever removed because of one, and who is a member comes from
// the signed records alone (SetMembers).
//
//	session -> Receive -> guard -> memberlist -> outgoing filter -> Link.SendControl -> session
//	                        |          |
//	directory -> SetMembers +          +-> Alive, GivenUp, Changed
//
// Only a member's neighbours (SetNeighbours) talk to it and watch it, by their sessions with it. memberlist, which would probe
// everybody, is told that all is well with the others; it spreads suspicions and refutations among neighbours (docs/adr/0009).
//
// memberlist trusts whoever speaks to it. The guard in front of it decodes each packet itself, holds every field to what
// the authenticated sender may say, and encodes it anew: no byte of a peer reaches memberlist's own decoders.
package gossip
