package hello

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"meshd/keys"
)

// How an attempt to meet may end without a Result.
var (
	// ErrNoAnswer: nothing came within ten seconds. The address may be wrong or the path blocked.
	ErrNoAnswer = errors.New("no answer")
	// ErrWrongNetwork: who answered shows another root key than the one that is trusted.
	ErrWrongNetwork = errors.New("the node there belongs to another network")
	// ErrBadSignature: who answered did not sign its handshake with the key it shows.
	ErrBadSignature = errors.New("the node there does not hold the key it shows")
	// ErrBadCertificate: who answered is not a member of the network. The cause is wrapped too.
	ErrBadCertificate = errors.New("the certificate of the node there is not accepted")
	// ErrMalformed: who answered does not keep to the protocol.
	ErrMalformed = errors.New("the node there does not speak this protocol")
	// ErrSelf: who answered is this node itself.
	ErrSelf = errors.New("the node there is this one")
)

// ErrRefused says that the other side does not want to meet us, and why.
type ErrRefused struct {
	Reason string // printable ASCII, at most 120 bytes, in the other side's words
}

// Error is the reason in context.
func (e ErrRefused) Error() string { return "refused by the node there: " + e.Reason }

// Config is who a side is and whom it accepts.
type Config struct {
	Identity *keys.Identity
	Trust    *keys.Trust // nil: the network is not known yet (a joiner that trusts on first use)
	Chain    []byte      // own certificate chain; nil while not a member

	// Verify checks the chain of the other side, revocations included. Any error
	// refuses; whoever wants to let an expired member stay returns nil. Nil: Trust.Verify.
	Verify func(chain []byte, now time.Time) (*keys.Certificate, error)

	// Opens is how many opens an Initiator sends at most before a cookie comes
	// back: few to an address that only hearsay knows. 0: as many as ten seconds take (7).
	Opens int
}

// Result is whom a side has met.
type Result struct {
	Remote      keys.Public
	Certificate *keys.Certificate // the remote's; nil: it showed none, since one of the two is pending
	Root        ed25519.PublicKey // the network's; not proven to an Initiator without Trust
	Pending     bool              // one of the two is not a member yet: a session of the class pending may follow
	HourOffset  int32             // the remote's hour minus ours, for the tags of probes
}

func (c *Config) check() error {
	switch {
	case c.Identity == nil:
		return errors.New("prepare hello: no identity")
	case len(c.Chain) > 0 && c.Trust == nil:
		return errors.New("prepare hello: a certificate chain without a network")
	case c.Trust != nil && len(c.Trust.Root) != keyLen:
		return errors.New("prepare hello: the root key has a wrong length")
	case len(c.Chain) > maxChain:
		return fmt.Errorf("prepare hello: the certificate chain has %d bytes, at most %d fit", len(c.Chain), maxChain)
	}
	return nil
}

func (c *Config) verify(chain []byte, now time.Time) (*keys.Certificate, error) {
	verify := c.Verify
	if verify == nil {
		verify = c.Trust.Verify
	}
	cert, err := verify(chain, now)
	if err == nil && cert == nil {
		return nil, keys.ErrMalformed
	}
	return cert, err
}

// hour is unix time in hours.
func hour(t time.Time) uint32 { return uint32(t.Unix() / 3600) }
