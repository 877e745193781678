package relay

import (
	"slices"

	"meshd/keys"
)

// MaxHops is how many relays may be between two members.
const MaxHops = 3

// Fits reports whether two members may be connected over a chain of relays: not
// too many, none twice, and neither end among them, so that relays cannot be made
// to throw packets to and fro.
func Fits(a, b keys.NodeID, chain []keys.NodeID) bool {
	if a == b || len(chain) > MaxHops {
		return false
	}
	for i, id := range chain {
		if id == a || id == b || slices.Contains(chain[:i], id) {
			return false
		}
	}
	return true
}

// Join is the chain from one end to the other through a member, given the chains
// from that member to either.
func Join(toA []keys.NodeID, through keys.NodeID, toB []keys.NodeID) []keys.NodeID {
	chain := make([]keys.NodeID, 0, len(toA)+1+len(toB))
	for _, id := range slices.Backward(toA) {
		chain = append(chain, id)
	}
	return append(append(chain, through), toB...)
}
