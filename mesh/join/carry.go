package join

import (
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"meshd/keys"
)

// Carry is a joiner's message on its way from introducer to signer.
type Carry struct {
	Joiner  keys.Public    // as the introducer's hello has authenticated it
	From    netip.AddrPort // where the introducer sees the joiner; may be zero
	Payload []byte
}

// Back is an answer on its way from signer to introducer.
type Back struct {
	Joiner  keys.NodeID
	Payload []byte
}

type carryWire struct {
	_                      struct{} `cbor:",toarray"`
	Sign, WireGuard, Probe [32]byte
	From                   string
	Payload                []byte
}

type backWire struct {
	_       struct{} `cbor:",toarray"`
	Joiner  [16]byte
	Payload []byte
}

// Marshal encodes.
func (c Carry) Marshal() ([]byte, error) {
	w := carryWire{Sign: c.Joiner.Sign, WireGuard: c.Joiner.WireGuard, Probe: c.Joiner.Probe, Payload: c.Payload}
	if c.From.IsValid() {
		w.From = c.From.String()
	}
	return encodeCarried(typeCarry, w, c.Payload)
}

// Marshal encodes.
func (b Back) Marshal() ([]byte, error) {
	return encodeCarried(typeBack, backWire{Joiner: b.Joiner, Payload: b.Payload}, b.Payload)
}

func encodeCarried(kind byte, w any, payload []byte) ([]byte, error) {
	if kindOf(payload) == 0 {
		return nil, fmt.Errorf("carry: %w", ErrMessage)
	}
	out, err := encode(kind, w)
	if err != nil {
		return nil, fmt.Errorf("carry: %w", err)
	}
	if len(out) > MaxCarried {
		return nil, fmt.Errorf("carry: %d bytes, at most %d: %w", len(out), MaxCarried, ErrMessage)
	}
	return out, nil
}

// ParseCarry decodes what Carry.Marshal wrote.
func ParseCarry(msg []byte) (Carry, error) {
	var w carryWire
	if err := decodeCarried(typeCarry, msg, &w); err != nil {
		return Carry{}, fmt.Errorf("read carried: %w", err)
	}
	c := Carry{
		Joiner:  keys.Public{Sign: w.Sign, WireGuard: wgtypes.Key(w.WireGuard), Probe: wgtypes.Key(w.Probe)},
		Payload: w.Payload,
	}
	if w.From != "" {
		from, err := netip.ParseAddrPort(w.From)
		if err != nil || from.String() != w.From || from.Addr().Zone() != "" {
			return Carry{}, fmt.Errorf("read carried: address: %w", ErrMessage)
		}
		c.From = from
	}
	if _, ok := Signer(c.Payload); !ok {
		return Carry{}, fmt.Errorf("read carried: %w", ErrMessage)
	}
	return c, nil
}

// ParseBack decodes what Back.Marshal wrote.
func ParseBack(msg []byte) (Back, error) {
	var w backWire
	if err := decodeCarried(typeBack, msg, &w); err != nil {
		return Back{}, fmt.Errorf("read answer: %w", err)
	}
	if kindOf(w.Payload) < typeChallenge {
		return Back{}, fmt.Errorf("read answer: %w", ErrMessage)
	}
	return Back{Joiner: w.Joiner, Payload: w.Payload}, nil
}

func decodeCarried(kind byte, msg []byte, w any) error {
	if len(msg) < 2 || len(msg) > MaxCarried || msg[0] != kind {
		return ErrMessage
	}
	return decode(msg, w)
}
