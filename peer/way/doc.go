// Package way gives addresses to ways that are no plain UDP path, so that path
// tables, probes, handshakes, cookies and the search for an MTU work over them
// unchanged, and ways nest.
//
//	0        64       80               128
//	+--------+--------+----------------+
//	| 100::  | class  | id             |   port 1
//	+--------+--------+----------------+
//
// 100::/64 is the discard-only prefix (RFC 6666): no packet has its source there.
// A virtual address means something in the process that made it and nowhere
// else, and is never taken from a record, the configuration, a socket or a STUN
// answer.
package way
