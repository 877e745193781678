// Package snoop learns which multicast groups the hosts of one side of a switch
// listen to, from what they say to multicast routers: IGMP (RFC 1112, 2236, 3376) and
// MLD (RFC 2710, 3810), as a switch may overhear them (RFC 4541). It does no I/O and
// has no clock.
//
//	local frames --> Parse --> Message --> Table.Receive --> Set: who listens to what here
//	                                            ^
//	local side <------ frames <------ Table.Advance <------ Table.SetRemote: who listens elsewhere
//
// A Table also asks, where nobody else does: hosts speak when asked, so without a
// querier groups would age. And it speaks for hosts elsewhere, whose own reports do
// not cross the overlay (a proxy in the manner of RFC 9251), so that routers and
// other snooping switches on this side send their groups here.
//
// Times are durations since some start, as the switch has them.
package snoop
