// Package meshtest has what tests of hostile members share.
package meshtest

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"meshd/keys"
	"meshd/peer/hello"
)

// Turned is how a member says hello whose state is in dir, for an engine that plays its part. No node may use the state.
func Turned(dir string) (hello.Config, error) {
	store, err := keys.Open(dir)
	if err != nil {
		return hello.Config{}, err
	}
	defer store.Close()
	identity, err := store.LoadOrCreateIdentity()
	if err != nil {
		return hello.Config{}, err
	}
	raw, err := store.Load("membership")
	if err != nil {
		return hello.Config{}, err
	}
	var m struct {
		Root  []byte `cbor:"1,keyasint"`
		Chain []byte `cbor:"2,keyasint"`
	}
	if err := cbor.Unmarshal(raw, &m); err != nil {
		return hello.Config{}, fmt.Errorf("read membership: %w", err)
	}
	return hello.Config{Identity: identity, Trust: &keys.Trust{Root: m.Root}, Chain: m.Chain}, nil
}
