// Command game-lan finds game servers as games on a LAN do: the client asks
// everybody at once, by an IPv4 broadcast and an IPv6 multicast, and each
// server answers whoever has asked.
//
//	game-lan serve "Anna's castle"     a server, until it is ended
//	game-lan list                      the servers of the segment
//
// Over most VPNs a list stays empty, since they carry neither broadcast nor
// multicast. Over meshd it fills, since all members are on one Ethernet.
//
//	client                          every server
//	  | ask, to 255.255.255.255:47777     |
//	  | and to [ff02::6d65:7368]:47777    |
//	  |---------------------------------->|
//	  | answer, to the asking port        |
//	  |<----------------------------------|
package main
