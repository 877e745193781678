// Package bridge puts a TAP into a bridge of this host, and all back.
//
// The bridge is there already, or is made for an interface:
//
//	before                          after
//
//	eth0  addresses, routes         br-mesh0  eth0's addresses and routes, the member's MAC and addresses
//	mesh0 the member's addresses      +- eth0
//	                                  +- mesh0
//
// What was changed is written down first (Record), so that Undo puts it back also
// when the process that made the change was killed. Sync is level-triggered: it
// repairs what others undo by hand.
package bridge
