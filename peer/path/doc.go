// Package path chooses the way to one remote node. It is a pure machine: it
// takes the time, what was learnt and what was heard, and says what to probe,
// when to be asked again and which address to send to.
//
// An address is first a candidate: a record says that the node may be there, or
// something authentic came from there. A pong to a fresh random transaction
// makes it up, and only what is up is sent anything but probes. Among those, the
// table keeps to the active one until another is clearly better or the active
// one has fallen silent.
//
//	candidate --pong--> up (one is active) --silence--> candidate
//
//	table.go     what is known of the remote, and what callers say
//	candidate.go one address: its pings, round trips, signs of life
//	judge.go     which are up, which is active
//	schedule.go  what to ping, and when
//	call.go      what the remote has asked for, what this host cannot send
//	quiet.go     how long a pause may be
//	mtu.go       how large packets may be
//
// Times that callers pass may lag a little behind each other; they only ever
// move what is known forward.
package path
