// Package hello is how two nodes meet that share a network but not yet each
// other's certificates (PROTOCOL.md, section 2). It is two pure machines:
//
//	Initiator                                Responder
//	    open, 1200 bytes          ---->
//	                              <----      cookie (no state is kept)
//	    open with cookie          ---->
//	                              <----      answer: root key, own key
//	    proof: chain, or keys     ---->
//	                              <----      result: chain | pending | refused
//
// Inside is Noise_XX with a static key that each machine makes afresh; who a
// side is, it says by signing that key. Only the Initiator repeats. No answer is
// larger than its question. The name and the certificate of a Responder are seen
// by proven members only; those of an Initiator by whoever shows the network's
// root key, which is not a secret: so nodes meet strangers' addresses only where
// they have to.
package hello
