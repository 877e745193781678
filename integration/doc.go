// Package integration runs whole meshd nodes on the lab: real programs, real
// TAPs, real kernels' network stacks. Nothing but the command line, the JSON and
// the frames on the wires is looked at.
//
// The tests need root, and skip without it. LAB_USERNS=1 runs them as a user who
// may make user namespaces and open /dev/net/tun. MESHD names a program to test
// in place of the one that is built from this tree.
package integration
