package portmap

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"net/netip"
	"time"
)

// client speaks one protocol.
type client interface {
	// probe reports whether the router speaks it.
	probe(ctx context.Context, r Route) error
	// open asks for a mapping, or renews it: the same question in all protocols.
	open(ctx context.Context, r Route, port uint16, suggested netip.AddrPort) (*Mapping, error)
	// check reports whether the router has lost or changed it.
	check(ctx context.Context, r Route, m *Mapping) (changed bool, err error)
	// remove closes it.
	remove(ctx context.Context, r Route, m *Mapping) error
}

// pcpClient speaks PCP.
type pcpClient struct {
	prepare control
	secret  [32]byte
}

// nonce is the same for the same inner address after every restart of ours, so
// that a node that was killed can renew its mapping: a router holds who asks to
// the nonce (RFC 6887, 11.3).
func (c pcpClient) nonce(inner netip.AddrPort) (n pcpNonce) {
	mac := hmac.New(sha256.New, c.secret[:])
	mac.Write([]byte("meshd/1/pcp " + inner.String()))
	copy(n[:], mac.Sum(nil))
	return n
}

func (c pcpClient) probe(ctx context.Context, r Route) error {
	_, err := c.announce(ctx, r)
	if e := (*ResultError)(nil); errors.As(err, &e) && e.Code != pcpErrVersion {
		return nil // it speaks PCP, and not all of it
	}
	return err
}

func (c pcpClient) announce(ctx context.Context, r Route) (value uint32, err error) {
	err = exchange(ctx, r, c.prepare, pcpAnnounceRequest(r.Source), func(b []byte) (err error) {
		value, err = parsePCPAnnounce(b)
		return err
	})
	return value, err
}

func (c pcpClient) ask(ctx context.Context, r Route, inner, outer netip.AddrPort, lifetime time.Duration) (g pcpGrant, err error) {
	nonce := c.nonce(inner)
	err = exchange(ctx, r, c.prepare, pcpMapRequest(inner, outer, nonce, lifetime), func(b []byte) (err error) {
		g, err = parsePCPMap(b, inner, nonce)
		return err
	})
	return g, err
}

func (c pcpClient) open(ctx context.Context, r Route, port uint16, suggested netip.AddrPort) (*Mapping, error) {
	inner := netip.AddrPortFrom(r.Source, port)
	g, err := c.ask(ctx, r, inner, suggest(suggested, port), wanted)
	if err != nil {
		return nil, err
	}
	m := &Mapping{Protocol: PCP, Gateway: r.Gateway, Internal: inner, External: g.outer, Lifetime: g.lifetime, epoch: epoch{g.epoch, time.Now()}}
	return m, m.validate()
}

func (c pcpClient) check(ctx context.Context, r Route, m *Mapping) (bool, error) {
	value, err := c.announce(ctx, r)
	if e := (*ResultError)(nil); errors.As(err, &e) {
		return false, nil // it answers, and has no ANNOUNCE: its mappings are renewed in time
	}
	return m.tick(value, err)
}

func (c pcpClient) remove(ctx context.Context, r Route, m *Mapping) error {
	_, err := c.ask(ctx, r, m.Internal, netip.AddrPort{}, 0)
	return err
}

// natpmpClient speaks NAT-PMP.
type natpmpClient struct{ prepare control }

func (c natpmpClient) probe(ctx context.Context, r Route) error {
	if !r.Source.Is4() {
		return errNoIPv6
	}
	_, _, err := c.address(ctx, r)
	return err
}

var errNoIPv6 = errors.New("the protocol has no IPv6")

func (c natpmpClient) address(ctx context.Context, r Route) (external netip.Addr, value uint32, err error) {
	err = exchange(ctx, r, c.prepare, natpmpAddressRequest(), func(b []byte) (err error) {
		external, value, err = parseNATPMPAddress(b)
		return err
	})
	return external, value, err
}

func (c natpmpClient) open(ctx context.Context, r Route, port uint16, suggested netip.AddrPort) (*Mapping, error) {
	external, _, err := c.address(ctx, r)
	if err != nil {
		return nil, err
	}
	g, err := c.ask(ctx, r, port, suggest(suggested, port).Port(), wanted)
	if err != nil {
		return nil, err
	}
	m := &Mapping{
		Protocol: NATPMP, Gateway: r.Gateway, Internal: netip.AddrPortFrom(r.Source, port),
		External: netip.AddrPortFrom(external, g.outer), Lifetime: g.lifetime, epoch: epoch{g.epoch, time.Now()},
	}
	return m, m.validate()
}

func (c natpmpClient) ask(ctx context.Context, r Route, inner, outer uint16, lifetime time.Duration) (g natpmpGrant, err error) {
	err = exchange(ctx, r, c.prepare, natpmpMapRequest(inner, outer, lifetime), func(b []byte) (err error) {
		g, err = parseNATPMPMap(b, inner)
		return err
	})
	return g, err
}

func (c natpmpClient) check(ctx context.Context, r Route, m *Mapping) (bool, error) {
	external, value, err := c.address(ctx, r)
	changed, err := m.tick(value, err)
	return changed || err == nil && external != m.External.Addr(), err
}

func (c natpmpClient) remove(ctx context.Context, r Route, m *Mapping) error {
	_, err := c.ask(ctx, r, m.Internal.Port(), 0, 0)
	return err
}

// tick takes the router's count of seconds.
func (m *Mapping) tick(value uint32, err error) (restarted bool, _ error) {
	if err != nil {
		return false, err
	}
	now := epoch{value, time.Now()}
	restarted = m.epoch.restarted(now)
	m.epoch = now
	return restarted, nil
}

// errBadGrant is for an answer that grants nothing usable.
var errBadGrant = errors.New("the router grants what cannot be")

func (m *Mapping) validate() error {
	a := m.External.Addr()
	if m.External.Port() == 0 || !a.IsValid() || a.Is4() != m.Internal.Addr().Is4() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() ||
		m.Lifetime == 0 && m.Protocol != UPnP {
		return errBadGrant
	}
	return nil
}

// suggest is what to ask for: what we had, else our own port.
func suggest(last netip.AddrPort, port uint16) netip.AddrPort {
	if last.Port() != 0 {
		return last
	}
	return netip.AddrPortFrom(netip.Addr{}, port)
}
