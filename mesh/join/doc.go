// Package join admits nodes: the joining side and the signer's side as pure
// machines. Bytes and the time go in, messages and the next deadline come out.
//
// With an invite, the joiner asks the signer that issued it:
//
//	Joiner                          Desk (issuer of the invite)
//	  ask: name, proof, signature ───▶ redeem, sign, write down
//	  ◀─── grant: chain; state: the network's, in parts
//
// Without one, six words stand for the request (keys.Words). The joiner commits
// to its nonce before it sees the signer's:
//
//	Joiner                          Desk (any signer)
//	  commit: name, hash of nonce ───▶
//	  ◀─── challenge: nonce, signer's certificate, signature
//	  reveal: nonce, signature ──────▶ both show the words
//	  ◀─── waiting … an admin compares and approves …
//	  reveal again ──────────────────▶
//	  ◀─── grant, state
//
// Any answer may be a refusal instead. The joiner repeats its last message until
// it is answered, every answer may be given again, and what was granted is in the
// signer's log before it is said: loss, repetition, reordering and a signer
// killed at any point change nothing but the time.
//
// Between joiner and signer there may be an introducer, a member that passes the
// messages on (Carry, Back) and can neither read more out of them than a name
// nor change them unnoticed; it can only deny.
package join
