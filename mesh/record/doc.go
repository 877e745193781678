// Package record holds the signed, versioned statements that are the truth about a network: who is a member, where each
// member may be reached, what the network is called, and who is no longer welcome.
//
//	owner's keys.Identity                                    anyone
//	       |                                                   |
//	SignNode, SignNetwork, ...  ->  raw (<= 1,024 bytes)  ->  Parse  ->  *Record  ->  Verify
//
// A record's bytes are its identity: they are passed on as they came and never encoded anew. Parse accepts one encoding of
// each record only, so the same statement cannot circulate in two forms. The package has no state, no clock and no I/O; what
// is believed, kept and passed on is package directory's business.
//
// The encoding is deterministic CBOR (RFC 8949, section 4.2.1), arrays throughout:
//
//	record      = [type, payload bytes, signature bytes]
//	payload     = [owner, epoch, counter, body bytes]      node (2), network (3), groups (6)
//	            = the certificate chain                    certificate (1), without signature
//	            = the revocation                           revocation (4), without signature
//	signature   = Ed25519 over "meshd/1/<type>\0" ‖ network id ‖ payload
//
// Certificates and revocations carry their own signatures, and a second one would say nothing new.
package record
