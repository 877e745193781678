// Package doctor looks at what keeps a node from working well, and says what the
// user can do: a list of named checks, each of which stands alone and takes no
// harm from the failure of another.
//
//	host.go, host_linux.go   this machine: TUN device, rights, port, buffers, clock, DNS, firewall
//	network.go               what netcheck has measured
//	node.go                  what a running node says of itself and its peers
//
// It changes nothing on the machine.
package doctor
