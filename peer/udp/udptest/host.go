package udptest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"meshd/peer/udp"
)

// Host is a computer with one line. All of its addresses are on that line.
type Host struct {
	n    *Internet
	name string

	// Under the Internet's lock.
	realm    *realm
	addrs    []netip.Addr
	up, down line
	conns    []*conn
	nextPort uint16
}

const firstEphemeral = 49152

func newHost(n *Internet, r *realm, addrs []netip.Addr) *Host {
	h := &Host{n: n, name: "host", nextPort: firstEphemeral}
	if len(addrs) > 0 {
		h.name = addrs[0].String()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	h.up = line{name: "the uplink of " + h.name, rng: n.rng()}
	h.down = line{name: "the downlink of " + h.name, rng: n.rng()}
	h.attach(r, addrs)
	return h
}

// String is the address that the host had first.
func (h *Host) String() string { return h.name }

// Addrs is the host's addresses.
func (h *Host) Addrs() []netip.Addr {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	return slices.Clone(h.addrs)
}

// SetAddr gives the host other addresses where it is; none cuts it off. Sockets
// stay. What is on its way to an old address is lost.
func (h *Host) SetAddr(addrs ...netip.Addr) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.attach(h.realm, addrs)
}

// Move takes the host elsewhere, with other addresses.
func (h *Host) Move(to Place, addrs ...netip.Addr) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.attach(to.inside(), addrs)
}

func (h *Host) attach(r *realm, addrs []netip.Addr) {
	if h.realm != nil {
		h.realm.leave(h)
	}
	h.realm, h.addrs = r, slices.Clone(addrs)
	r.join(h, addrs)
}

// SetLink changes the two directions of the host's line. What is on its way
// stays as it was.
func (h *Host) SetLink(up, down Link) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.up.Link, h.down.Link = up, down
}

// Listen opens a socket for both families; port 0 picks one.
func (h *Host) Listen(port uint16) (udp.Conn, error) {
	return h.listen(&conn{both: true, local: netip.AddrPortFrom(netip.IPv6Unspecified(), port)})
}

// ListenAddr opens a socket for one family, as udp.Listen does. The address may
// be unspecified, or be one that the host has only later.
func (h *Host) ListenAddr(addr netip.AddrPort) (udp.Conn, error) {
	return h.listen(&conn{local: addr})
}

// ListenPort opens one socket for each family, as udp.ListenPort does.
func (h *Host) ListenPort(port uint16) (v4, v6 udp.Conn, err error) {
	if v4, err = h.ListenAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), port)); err != nil {
		return nil, nil, err
	}
	port = v4.LocalAddr().Port() // free in both: ephemeral ports count up for all sockets
	if v6, err = h.ListenAddr(netip.AddrPortFrom(netip.IPv6Unspecified(), port)); err != nil {
		return nil, nil, errors.Join(err, v4.Close())
	}
	return v4, v6, nil
}

func (h *Host) listen(c *conn) (udp.Conn, error) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if c.local.Port() == 0 {
		c.local = netip.AddrPortFrom(c.local.Addr(), h.nextPort)
		h.nextPort++
	}
	for _, other := range h.conns {
		if c.overlaps(other) {
			return nil, fmt.Errorf("listen udp %s: %w", c.local, syscall.EADDRINUSE)
		}
	}
	c.init(h)
	h.conns = append(h.conns, c)
	return c, nil
}

// source is the address that the host sends from to dst.
func (h *Host) source(dst netip.Addr) (netip.Addr, bool) {
	for _, a := range h.addrs {
		if a.Is4() == dst.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// send has d leave the host. It is called without the lock.
func (h *Host) send(d *passage) {
	h.n.tap(d)
	h.n.mu.Lock()
	r := h.realm
	if slices.Contains(h.addrs, d.dst.Addr()) {
		h.n.schedule(time.Now(), func() { h.arrive(d) })
	} else {
		h.n.cross(&h.up, d, func(d *passage) { h.n.route(r, d) })
	}
	h.n.mu.Unlock()
}

func (h *Host) downLine() *line { return &h.down }

// arrive hands d to its socket. The filters are asked first, and without the
// lock.
func (h *Host) arrive(d *passage) {
	blocked := false
	for _, r := range *h.n.rules.Load() {
		blocked = blocked || r.drop(Datagram{From: d.from, To: h, Src: d.src, Dst: d.dst, Data: d.data})
	}
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	switch i := slices.IndexFunc(h.conns, func(c *conn) bool { return c.takes(d.dst) }); {
	case blocked:
		h.n.flows.dropped(d, "blocked")
	case !slices.Contains(h.addrs, d.dst.Addr()):
		h.n.flows.dropped(d, "the host has moved")
	case i < 0:
		h.n.flows.dropped(d, "no socket at this port")
	case !h.conns[i].push(d):
		h.n.flows.dropped(d, "receive buffer full")
	default:
		h.n.flows.delivered(d)
	}
}
