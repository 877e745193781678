// Package stations carries what the switches of two members tell each other of the
// stations behind them, and divides a member's stations into the pages of its records.
//
//	l2.Switch ──Local──► Divide ──► directory: pages, signed ──gossip──► everybody
//	    │
//	    └──Notice──► Append ──(control kind 17, ahead of the frame)──► Parse ──► l2.Switch
package stations
