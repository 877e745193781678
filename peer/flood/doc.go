// Package flood spreads one frame to all members of a large mesh, or to those of them that
// it is for: each sends at most Fanout copies of it and gets it once.
//
//	origin --copy--> 8 children --copy--> 8 children each --copy--> ...
//	   the circle of ids, cut into parts     each cuts its own part further
//
//	who has it --have--> neighbours, of which one that has missed it --want--> and gets a copy
//
// A copy says which part of the circle of ids its receiver is to pass it on to, so that
// no node needs to know the tree. It carries the origin's signature: who passes it on can
// neither alter nor invent one. What a dead, lying or less informed child leaves out, its
// neighbours repair: a while after a frame came, each node tells those with whom it keeps a
// session that it has it.
//
// Machine is pure: copies, messages and times go in, and who is to be sent what comes out.
// It neither signs nor verifies.
package flood
