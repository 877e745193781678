// Package fragment carries a frame that is larger than the path in up to eight
// pieces (PROTOCOL.md, 4.2).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------------------------------------------------------+
//	|                         frame number                          |
//	+---------------+---------------+-------------------------------+
//	|     piece     |    pieces     | bytes ...                     |
//	+---------------+---------------+-------------------------------+
//
// All pieces but the last have the same size, so that any piece but the last
// tells where it belongs; the last one waits at the end of the buffer until
// another has come. Order of arrival does not matter.
package fragment
