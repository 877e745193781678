// Package probe asks over one address whether a node is alive there, and tells
// it how it looks from here (PROTOCOL.md, section 3).
//
//	 0      1       2   4          12           36
//	+------+-------+---+----------+------------+--------------------------------+
//	| 0xd2 | ver 1 | 0 | tag (8)  | nonce (24) | XChaCha20-Poly1305 of message  |
//	+------+-------+---+----------+------------+--------------------------------+
//
//	 0        1         2                14         15       17           33
//	+--------+---------+----------------+----------+--------+------------+------+
//	|  kind  |  flags  |  transaction   |  family  |  port  |  address   | zero |
//	+--------+---------+----------------+----------+--------+------------+------+
//
// A Pair holds the keys of two nodes; a Table finds the pair of a datagram by
// its tag. Both sides hold the same keys, one for each direction, so that
// nothing can be reflected at its sender.
package probe
