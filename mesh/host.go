package mesh

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"

	"meshd/l2"
	"meshd/mesh/gateway"
	"meshd/mesh/underlay"
	"meshd/nat-traversal"
	"meshd/peer/udp"
)

// machine is the Host that a node runs on outside tests.
type machine struct {
	mark uint32 // of its sockets; 0: none
}

// parallel is how many queues of the TAP, and sockets of a family, are served side by
// side: a packet costs one processor on its way out and another on its way in.
func parallel() int { return parallelOn(runtime.GOMAXPROCS(0)) }

// parallelOn is half of the processors, rounded up: several with more than two of them.
func parallelOn(processors int) int { return min((processors+1)/2, 8) }

// Listen implements Host.
func (m machine) Listen(at netip.AddrPort) ([]udp.Conn, error) {
	opts := udp.Options{Mark: m.mark}
	if a := at.Addr(); a.IsValid() && !a.IsUnspecified() {
		c, err := udp.Listen(at, opts)
		if err != nil {
			return nil, err
		}
		return append([]udp.Conn{c}, udp.More(c, parallel()-1, opts)...), nil
	}
	v4, v6, err := udp.ListenPort(at.Port(), opts)
	if err != nil {
		return nil, err
	}
	var conns []udp.Conn
	for _, c := range []udp.Conn{v4, v6} {
		if c != nil {
			conns = append(append(conns, c), udp.More(c, parallel()-1, opts)...)
		}
	}
	return conns, nil
}

// OpenPort opens a socket beside those of Listen.
func (m machine) OpenPort(port uint16, spare bool) (udp.Conn, error) {
	opts := udp.Options{Mark: m.mark, Spare: spare}
	if spare {
		opts.BufferBytes = 16 << 10
	}
	return udp.Listen(netip.AddrPortFrom(netip.IPv4Unspecified(), port), opts)
}

// OpenSegment implements Host.
func (machine) OpenSegment(cfg l2.TAPConfig) (l2.Device, error) { return l2.OpenTAP(cfg) }

// GoAround has marked packets routed around the TAP.
func (machine) GoAround(tap string) (detour, error) { return underlay.Open(tap) }

// OpenRoutes changes this host's routes and settings.
func (machine) OpenRoutes(tap string, notes []byte, save func([]byte) error) (routes, error) {
	return gateway.Open(tap, notes, save)
}

// CheckSegment says what would keep OpenSegment from working.
func (machine) CheckSegment(cfg l2.TAPConfig) error { return l2.CheckTAP(cfg) }

// Candidates implements Host.
func (machine) Candidates(port uint16, tap string, prefixes []netip.Prefix) ([]traversal.Candidate, error) {
	return traversal.Gather(port, func(ifname string, a netip.Addr) bool {
		return ifname == tap || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// Watch implements Host.
func (machine) Watch(ctx context.Context) <-chan struct{} { return traversal.Watch(ctx) }

// Resolve implements Host.
func (machine) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, err
}

// ListenTCP implements streamHost.
func (m machine) ListenTCP(at netip.AddrPort) (net.Listener, error) {
	address := at.String()
	if at.Addr().IsUnspecified() {
		address = ":" + strconv.Itoa(int(at.Port())) // both families
	}
	cfg := net.ListenConfig{Control: underlay.Control(m.mark)}
	return cfg.Listen(context.Background(), "tcp", address)
}

// DialTCP implements streamHost.
func (m machine) DialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Control: underlay.Control(m.mark)}
	return d.DialContext(ctx, "tcp", address)
}
