// Package dhcp4 hands out IPv4 addresses on an Ethernet segment (RFC 2131). Machines
// without I/O: frames, a time and what is known of who has an address go in, frames and
// the next deadline come out.
//
//	frame (DHCP request) -> Server -> frames (ARP probe, DHCP reply), when to ask again
//	                          |
//	                        table  who has which address until when; bounded
//
// An address that its client did not have before is asked for on the segment before
// it is offered. The format of messages is package dhcpv4's.
package dhcp4
