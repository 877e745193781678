// Package path chooses the way to one remote node. It is a pure machine: it
// takes the time, what was learnt and what was heard, and says what to probe,
// when to be asked again and which address to send to.
//
// An address is first a candidate: somebody said that the node may be there.
// Probing it with a fresh random transaction makes it confirmed, and only a
// confirmed address is sent anything but probes. Among the confirmed ones the
// table keeps to the active path until another is clearly better or the active
// one has died.
//
//	candidate --pong--> confirmed (one is active) --silence--> dead --pong--> confirmed
package path
