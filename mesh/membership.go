package mesh

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fxamacker/cbor/v2"

	"meshd/keys"
	"meshd/mesh/record"
)

// Names of what the state directory holds, beside the identity.
const (
	stateMembership = "membership" // which network, and our certificate
	stateRoot       = "root"       // the root key, at the founder
	stateSigner     = "signer"     // our signer's certificate, if we are one
	stateCache      = "members"    // records and last good addresses
	stateHost       = "host"       // what has to be put back on this host
	stateLeases     = "leases"     // who has which IPv4 address from us
	stateGateway    = "gateway"    // likewise, of the kernel's settings
	stateBridge     = "bridge"     // likewise, of a bridge
)

// membership says which network this node belongs to.
type membership struct {
	Root    []byte `cbor:"1,keyasint"` // Ed25519 public key
	Chain   []byte `cbor:"2,keyasint"` // our certificate chain
	Network []byte `cbor:"3,keyasint"` // the network record at the time of joining
}

func (m *membership) trust() keys.Trust { return keys.Trust{Root: ed25519.PublicKey(m.Root)} }

// loadMembership returns nil when this node has none yet.
func loadMembership(store *keys.Store) (*membership, error) {
	raw, err := store.Load(stateMembership)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := new(membership)
	if err := cbor.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("read %s: %w", stateMembership, err)
	}
	if len(m.Root) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("read %s: the root key has %d bytes", stateMembership, len(m.Root))
	}
	return m, nil
}

func (m *membership) save(store *keys.Store) error {
	raw, err := cbor.Marshal(m)
	if err != nil {
		return fmt.Errorf("write %s: %w", stateMembership, err)
	}
	return store.Save(stateMembership, raw)
}

// found makes a new network with this node as its founder, who holds every
// role. The membership is written last: with it the network exists.
func found(store *keys.Store, id *keys.Identity, cfg *Config, now time.Time) (*membership, error) {
	root, err := keys.NewRoot(cfg.Name, now)
	if err != nil {
		return nil, fmt.Errorf("found network: %w", err)
	}
	signerCert, err := root.IssueSigner(id.Public(), now)
	if err != nil {
		return nil, fmt.Errorf("found network: %w", err)
	}
	signer, err := keys.NewSigner(id, signerCert)
	if err != nil {
		return nil, fmt.Errorf("found network: %w", err)
	}
	chain, err := signer.Issue(id.Public(), cfg.Name, keys.AllRoles(), now)
	if err != nil {
		return nil, fmt.Errorf("found network: %w", err)
	}
	trust := keys.Trust{Root: root.Public()}
	network, err := foundingRecord(id, trust, cfg)
	if err != nil {
		return nil, fmt.Errorf("found network: %w", err)
	}
	rootPEM, err := root.Marshal()
	if err != nil {
		return nil, fmt.Errorf("found network: %w", err)
	}
	m := &membership{Root: root.Public(), Chain: chain, Network: network}
	for name, body := range map[string][]byte{stateRoot: rootPEM, stateSigner: signerCert} {
		if err := store.Save(name, body); err != nil {
			return nil, err
		}
	}
	return m, m.save(store)
}

// foundingRecord is the network's first description of itself.
func foundingRecord(id *keys.Identity, trust keys.Trust, cfg *Config) ([]byte, error) {
	body := record.Network{Name: cfg.Name, Prefixes: cfg.Prefixes, MTU: cfg.MTU}
	if len(body.Prefixes) == 0 {
		body.Prefixes = append(body.Prefixes, keys.ULA(trust.NetworkID()))
	}
	if body.MTU == 0 {
		body.MTU = DefaultMTU
	}
	return record.SignNetwork(id, trust.NetworkID(), record.Version{Epoch: 1, Counter: 1}, body)
}

// loadSigner returns nil when this node is not a signer.
func loadSigner(store *keys.Store, id *keys.Identity) (*keys.Signer, error) {
	cert, err := store.Load(stateSigner)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return keys.NewSigner(id, cert)
}
