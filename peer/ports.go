package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net/netip"
	"time"

	"meshd/peer/probe"
	"meshd/peer/punch"
	"meshd/peer/udp"
	"meshd/peer/way"
)

// The method of many ports (package punch) needs sockets beside the engine's own.
// One of them may come to carry the path to a remote: what goes to the address
// that it was opened towards leaves by it, for as long as that path is in use.

const (
	// manyEvery is the least time between two tries with different remotes, of
	// either side. Else an address that has not answered is sent few packets;
	// docs/adr/0010 says why these are more.
	manyEvery = time.Minute
	// portGrace is for how long a port is kept that carries nothing yet.
	portGrace = 10 * time.Second
)

// PortOpener opens a socket for IPv4 beside the engine's own, on a port or on any
// (0). It is spare when it will see a few packets only.
type PortOpener func(port uint16, spare bool) (udp.Conn, error)

// tries is the state of the method, behind the control lock.
type tries struct {
	open  PortOpener // nil: this host cannot
	try   *try       // of this node as the hidden side; nil: none
	with  *Remote    // the last try, of either side
	since time.Time
	spawn []func(ctx context.Context) error // to be started by the loop
}

// busy reports whether there was just one with another remote.
func (t *tries) busy(r *Remote, now time.Time) bool {
	return t.with != nil && t.with != r && now.Sub(t.since) < manyEvery
}

// take notes a try.
func (t *tries) take(r *Remote, now time.Time) {
	if t.with != r || now.Sub(t.since) >= manyEvery {
		t.with, t.since = r, now
	}
}

// try is the hidden side of one.
type try struct {
	remote *Remote
	to     netip.AddrPort
	ports  []udp.Conn
}

// openPorts opens ports towards an address of the remote's.
func (r *Remote) openPorts(to netip.AddrPort, now time.Time) {
	e := r.engine
	c := &e.control.tries
	if c.open == nil || c.with != r || len(e.reachable([]netip.AddrPort{to})) == 0 {
		return
	}
	e.closeTry()
	c.try = &try{remote: r, to: to}
	for range punch.Ports {
		conn, err := c.open(0, true)
		if err != nil {
			e.log.Debug("open a port", "err", err)
			break
		}
		_ = conn.Send([]udp.Packet{{Addr: to, Data: r.blindPing(now)}})
		c.try.ports = append(c.try.ports, conn)
		c.spawn = append(c.spawn, func(context.Context) error { return e.listenPort(conn, to) })
	}
	e.log.Debug("ports opened", "peer", r.ID.String(), "to", to.String(), "count", len(c.try.ports))
}

// blindPing is a ping of which no answer is expected: what it brings about is a
// ping of the other's.
func (r *Remote) blindPing(now time.Time) []byte {
	m := probe.Message{Kind: probe.Ping}
	_, _ = rand.Read(m.Transaction[:]) // never fails (crypto/rand)
	return r.pair.Append(nil, m, probe.Hour(now), 0)
}

// listenPort hands on the probes that come to a spare port from where it is open to.
func (e *Engine) listenPort(conn udp.Conn, to netip.AddrPort) error {
	pkts := make([]udp.Packet, 1)
	for {
		n, err := conn.Receive(pkts)
		if err != nil {
			return nil // it was closed
		}
		for _, p := range pkts[:n] {
			if p.Addr == to && udp.Classify(p.Data) == udp.KindProbe {
				e.enqueueFrom(conn, e.probeQ, p.Addr, p.Data, &e.counts.ProbesDropped)
			}
		}
	}
}

// adopt makes the port that a remote's ping has come to the one by which its address
// is reached. It is false when the ping has no business there.
func (e *Engine) adopt(conn udp.Conn, r *Remote, from netip.AddrPort, now time.Time) bool {
	c := &e.control.tries
	if c.try == nil || c.try.remote != r || c.try.to != from {
		return false
	}
	port := conn.LocalAddr().Port()
	e.closeTry()                     // with that port, to be opened anew
	full, err := c.open(port, false) // the same, for more than a few packets
	if err != nil {
		e.log.Debug("keep a port", "err", err)
		return false
	}
	e.setPort(from, full)
	c.spawn = append(c.spawn, func(ctx context.Context) error { return e.receive(ctx, full, way.Direct) })
	r.port, r.portAt = from, now
	r.paths.Vouch(from, now)
	e.log.Debug("port kept", "peer", r.ID.String(), "to", from.String(), "port", port)
	return true
}

// closeTry ends a try and closes its ports.
func (e *Engine) closeTry() {
	c := &e.control.tries
	if c.try == nil {
		return
	}
	for _, conn := range c.try.ports {
		_ = conn.Close() // nothing is lost with it
	}
	c.try = nil
}

// setPort changes by which socket an address is reached; nil: the engine's own.
func (e *Engine) setPort(to netip.AddrPort, conn udp.Conn) {
	ports := maps.Clone(*e.ports.Load())
	if old := ports[to]; old != nil {
		_ = old.Close() // nothing is lost with it
	}
	if conn == nil {
		delete(ports, to)
	} else {
		ports[to] = conn
	}
	e.ports.Store(&ports)
}

// dropPort closes the port of a remote whose path is in use no longer.
func (r *Remote) dropPort(wanted bool, now time.Time) {
	if !r.port.IsValid() || now.Sub(r.portAt) < portGrace || wanted && r.paths.Up(r.port) {
		return
	}
	r.closePort()
}

func (r *Remote) closePort() {
	if r.port.IsValid() {
		r.engine.setPort(r.port, nil)
		r.port = netip.AddrPort{}
	}
}

// sprayPorts probes ports of the remote's NAT.
func (r *Remote) sprayPorts(to []netip.AddrPort, now time.Time) {
	if r.engine.control.tries.with != r {
		return
	}
	for _, a := range r.engine.reachable(to) {
		r.engine.send(a, r.blindPing(now))
	}
}

// startPorts starts the goroutines of ports. It is called by the loop, which
// outlives none of them.
func (e *Engine) startPorts(ctx context.Context, start func(func() error)) {
	c := &e.control
	c.Lock()
	spawn := c.tries.spawn
	c.tries.spawn = nil
	c.Unlock()
	for _, f := range spawn {
		start(func() error { return f(ctx) })
	}
}

// closePorts closes all, at the end.
func (e *Engine) closePorts() error {
	e.control.Lock()
	defer e.control.Unlock()
	e.closeTry()
	e.control.tries.open = nil
	var errs []error
	for _, conn := range *e.ports.Load() {
		errs = append(errs, conn.Close())
	}
	e.ports.Store(&map[netip.AddrPort]udp.Conn{})
	return errors.Join(errs...)
}

// connTo returns the socket by which an address is reached, nil if there is none.
func (e *Engine) connTo(a netip.AddrPort) udp.Conn {
	if ports := *e.ports.Load(); len(ports) > 0 {
		if conn := ports[a]; conn != nil {
			return conn
		}
	}
	return e.connFor(a.Addr())
}
