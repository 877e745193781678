// Package wireguard is the WireGuard protocol as pure machines: messages and
// the time go in, messages, keys and the next deadline come out. It has no
// socket, goroutine, timer or clock of its own.
//
//	          Local: static key, mac1/mac2 checks, rate limit (one per node)
//	            |
//	type 1 --> InitiationKey --> who is it? --> Session.HandleInitiation
//	type 2 --> receiver index -----------------> Session.HandleResponse
//	type 3 --> receiver index -----------------> Session.HandleCookie
//	type 4 --> receiver index --> Keypair.Open --> Keypair.MarkReceived
//	frame  --> Session.SendKey --> Keypair.Seal --> Keypair.MarkSent
//	deadline ----------------------------------> Session.Tick
//
// "The paper" in comments is "WireGuard: Next Generation Kernel Network
// Tunnel" by J. A. Donenfeld, with the section. Messages and timers are
// compatible with it; PROTOCOL.md section 4 has what members do differently.
//
// # What the caller does
//
// It locks each Session for every method but SendKey, Remote and Stats, acts
// on the Output, and calls Tick at Output.Wake (the last Output's Wake is the
// one that holds) and whenever MarkSent or MarkReceived returns true.
// Keypairs need no lock.
//
// Indexes: an index that came from Options.NewIndex belongs to the Session
// until it is in Output.Removed. The caller registers index -> Session in
// NewIndex itself (type 2 and 3 messages find their Session by it) and index ->
// Keypair when the Keypair is in Output.Added.
//
// Output.Messages carry no MACs yet, because cookies belong to paths: call
// Stamp(msg, path, now) for the path that msg is about to take, then send it.
// To send one message over several paths, stamp and send in turn.
//
// A message of type 1 or 2 is first shown to Local.CheckMACs. Under load its
// cookie reply, if any, goes back to where the message came from; what passes
// is also asked of Local.Allow.
//
// # A clock that went back
//
// A responder takes an initiation only if its timestamp is later than the last
// one (paper, 5.1). Within a Session timestamps increase whatever the clock
// does. A process that restarts with its clock set back cannot initiate
// towards those who saw the later time; they can still initiate towards it, so
// after a GaveUp, or a hello from that peer, the caller has the other side
// initiate, or makes a new Session for it there (which forgets the timestamp;
// safe after a hello, since that proved the peer to be alive).
package wireguard
