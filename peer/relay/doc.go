// Package relay is how neighbours carry for each other: circuits, and who may
// use them. Everything in it is pure: messages and times go in, messages and
// deadlines come out.
//
//	asker            relay                other
//	  |  open ------> |                     |
//	  |  <---- opened | offer ------------> |     control messages, each inside a session
//	  |               | <----------- accept |
//	  |               |                     |
//	  |  0xd3 frame > | 0xd3 frame -------> |     datagrams between asker and other, unopened
//	  |  <            | <                   |
//
// A circuit is a ticket for one pair: it has an id on either side of the relay,
// ends unless the asker refreshes it, and carries what comes from the addresses
// that the relay's own sessions with the two have confirmed. What it carries are
// WireGuard, probe and hello datagrams between the two ends, or relay frames of a
// circuit over this one.
//
//	frame.go    the header of a datagram on a circuit
//	message.go  what ends and relays say to each other
//	desk.go     the relay's side: what it carries for others
//	book.go     an end's side: what is carried for it
//	terms.go    and how well
//	chain.go    how far, and never in circles
//	choose.go   whom to ask
//	share.go    who gets how much
package relay
