package record

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"meshd/keys/canon"
)

// Bounds of a network record.
const (
	MaxPrefixes    = 8
	MaxNetworkName = 63
	MaxSettings    = 16
	MaxSetting     = 64 // bytes of a name or value
	MinMTU         = 1280
	MaxMTU         = 9000
)

// Network is what an admin says of the whole network.
type Network struct {
	Name string
	// Prefixes are IPv6 /64s; the first is the one to show.
	Prefixes []netip.Prefix
	MTU      int
	// Settings are named values for later use; a reader ignores names that it does not know.
	Settings map[string]string
}

// Equal says whether both say the same.
func (n Network) Equal(o Network) bool {
	return n.Name == o.Name && n.MTU == o.MTU && slices.Equal(n.Prefixes, o.Prefixes) && maps.Equal(n.Settings, o.Settings)
}

type wireNetwork struct {
	_        struct{} `cbor:",toarray"`
	Name     string
	Prefixes [][8]byte // the upper halves of /64s
	MTU      uint16
	Settings map[string]string
}

func parseNetwork(b []byte) (*Network, error) {
	var w wireNetwork
	if err := canon.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if w.Prefixes == nil || w.Settings == nil {
		return nil, fmt.Errorf("%w: null list", ErrMalformed)
	}
	n := &Network{Name: w.Name, MTU: int(w.MTU), Settings: w.Settings}
	for _, p := range w.Prefixes {
		var a [16]byte
		copy(a[:], p[:])
		n.Prefixes = append(n.Prefixes, netip.PrefixFrom(netip.AddrFrom16(a), 64))
	}
	return n, n.check()
}

func (n Network) wire() wireNetwork {
	w := wireNetwork{Name: n.Name, Prefixes: make([][8]byte, 0, len(n.Prefixes)), MTU: uint16(n.MTU), Settings: n.Settings}
	for _, p := range n.Prefixes {
		a := p.Addr().As16()
		w.Prefixes = append(w.Prefixes, [8]byte(a[:8]))
	}
	if w.Settings == nil {
		w.Settings = map[string]string{}
	}
	return w
}

func (n Network) check() error {
	if err := checkText("network name", n.Name, MaxNetworkName); err != nil {
		return err
	}
	if len(n.Prefixes) > MaxPrefixes || len(n.Settings) > MaxSettings {
		return fmt.Errorf("%w: %d prefixes, %d settings", ErrInvalid, len(n.Prefixes), len(n.Settings))
	}
	if n.MTU < MinMTU || n.MTU > MaxMTU {
		return fmt.Errorf("%w: MTU %d", ErrInvalid, n.MTU)
	}
	for i, p := range n.Prefixes {
		ip := p.Addr()
		if !p.IsValid() || !ip.Is6() || ip.Is4In6() || p.Bits() != 64 || p != p.Masked() || !ip.IsGlobalUnicast() ||
			slices.Contains(n.Prefixes[:i], p) {
			return fmt.Errorf("%w: prefix %v", ErrInvalid, p)
		}
	}
	for k, v := range n.Settings {
		if k == "" {
			return fmt.Errorf("%w: setting without name", ErrInvalid)
		}
		if err := checkText("setting", k, MaxSetting); err != nil {
			return err
		}
		if err := checkText("setting", v, MaxSetting); err != nil {
			return err
		}
	}
	return nil
}
