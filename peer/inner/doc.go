// Package inner is the envelope of what crosses a session: the plaintext of a
// WireGuard transport message between members (PROTOCOL.md, 4.1).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+-----+-----------------+-------------------------------+
//	| ver=1 |kind | checksum start  |        length of body         |
//	+-------+-----+-----------------+-------------------------------+
//	| body ...                                      | zero padding  |
//	+-----------------------------------------------+---------------+
//
// It is also the one place for the arithmetic of sizes: what a path of a given
// MTU carries, and how far a packet is padded.
package inner
