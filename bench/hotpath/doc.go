// Package hotpath is the way of a frame without a kernel: two nodes in one
// process, each a switch over a session, and a wire in memory between them.
//
//	Device (a) -> l2.Switch -> peer.Remote -> Wire -> peer.Engine -> l2.RemotePort -> Device (b)
//
// Frames go down one side and up the other on one goroutine at a time, without a
// system call and without a timer, so that what a frame costs can be counted: in
// instructions under callgrind, which is the guard in CI (budget.txt), and in
// nanoseconds by number of members and stations (scaling).
package hotpath
