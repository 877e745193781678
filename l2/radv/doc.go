// Package radv speaks for routers on an Ethernet segment: router advertisements
// (RFC 4861 with RFC 4191 and RFC 8106), answers to those who ask for the router, and
// what a host makes of advertisements. Machines without I/O: frames and a time go in,
// frames and the next deadline come out.
//
//	frame (RS, NS) ->  Advertiser  -> frames (RA, NA), when to ask again
//	frame (RA)     ->  Routers     -> the router to use
//
// Frames are untagged Ethernet without FCS. The format of messages is package ndp's.
package radv
