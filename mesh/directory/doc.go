// Package directory merges what the members of a network say into one view of it, and keeps that view in step with the
// views of others. It is pure: records, messages and the time go in; changes, answers and what to pass on come out. It has
// no goroutine, lock, clock or socket, and belongs to the one goroutine that calls it.
//
//	others' records -> Merge ----> Members, Network      what is true
//	                     |
//	                     +-------> delta                 what to pass on: Push to every neighbour but the one it came from
//	 neighbour's message -> HandleSync -> replies, delta
//	 new session, every 10 s -> Digest -> to that neighbour
//
// Merge is commutative, associative and idempotent: nodes that have seen the same records, in whatever order and however
// often, hold the same view. Nothing is deleted because of time: an expired certificate keeps its member, with a flag.
package directory
