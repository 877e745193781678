// Package lanport decides whether the TAP of a member that bridges a physical LAN
// forwards. Members on one LAN find each other by statements, which each sends out
// of its TAP, and so over exactly the way that frames take; one of them forwards and
// the others block, both ways.
//
//	         link up                 nobody better for three intervals
//	Alone ------------> Listening ------------------------------------> Forwarding
//	  ^                    |   a forwarder is heard                        |  ^
//	  |  link down         v                                               |  |
//	  +--------------- Blocked <-------------------------------------------+  |
//	                       |            a better forwarder is heard           |
//	                       +--------------------------------------------------+
//	                             the forwarder is silent for three intervals
//
// The package has no I/O, clock or key: who uses it signs what it says and verifies
// what it hears.
package lanport
