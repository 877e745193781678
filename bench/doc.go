// Command bench compares meshd with other ways to connect two hosts, on this
// machine: two network namespaces with a veth pair between them, one program
// on each side, everything in interleaved rounds. `make bench` runs it.
//
//	     host a                         host b
//	+--------------+               +--------------+
//	| iperf3, ping |               | iperf3, ...  |
//	| tunnel 10.99.0.1    ....     | 10.99.0.2    |
//	| program      |               | program      |
//	| eth0 198.18.0.1 --- veth --- | 198.18.0.2   |
//	+--------------+               +--------------+
//
// A variant is one file: how its programs are found and started. What is
// measured is the same for all of them (measure_linux.go), and so is what is
// made of it (package report). Each start gets new namespaces, so that nothing
// of one variant is left when the next one starts.
package main
