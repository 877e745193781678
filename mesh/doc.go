// Package mesh is a node: who the members are, and what should be connected.
//
// It wires the parts and is not on a frame's way:
//
//	run.go      the life of a node: state, sockets, join, TAP, ready, end
//	control.go  one goroutine that owns all control state: tasks in, then reconcile
//	              |            |             |             |
//	         directory      peer.Engine    l2.Switch     names
//	         (records)      (remotes)      (ports)       (DNS)
//
// Everything is level-triggered: reconcile compares what should be connected
// with what is and acts on the difference, so that a lost event costs a delay
// and never a wrong state. The control socket's calls run as tasks of the same
// goroutine (service.go).
package mesh
