// Package keys answers "who is this, and may it be here?": identities,
// certificates, invites, revocations, and the files that keep them.
//
// It knows nothing of the network, and of time only what it is told.
//
//	Root ──signs──▶ Signer (admin) ──signs──▶ node certificate ──▶ Trust.Verify
//	                   │ issues
//	                   ▼
//	                Invite ──Prove──▶ IssueLog.Redeem (once, on disk, before any answer)
//
//	Store ── checksummed generations (Save, Load) and logs (Append, ReadLog)
//
// An identity is one Ed25519 key, which names the node (NodeID), and two X25519
// keys that its certificate binds to it: one for WireGuard, one for probes.
package keys
