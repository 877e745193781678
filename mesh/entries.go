package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"meshd/keys"
	"meshd/peer/hello"
	"meshd/peer/stream"
	"meshd/peer/way"
)

// Entry points: where --join leads, and how whoever is there is met.

const (
	// tlsPort is where a TLS listener is looked for besides the port that was given.
	tlsPort = 443
	// sshPatience is how long ssh may take: it may ask for a password.
	sshPatience = time.Minute
)

// entryPoints is what --join comes down to.
type entryPoints struct {
	addrs  []netip.AddrPort
	tls    []tlsEntry
	ssh    []stream.SSH
	invite *keys.Invite
	stale  error // that the invite has expired by the clock here, which may be wrong: its signer decides
}

// tlsEntry is a host that may take streams, at HOST:PORT each.
type tlsEntry struct {
	host  string
	ports []string
}

// empty says that nothing is to be tried.
func (e *entryPoints) empty() bool { return len(e.addrs)+len(e.tls)+len(e.ssh) == 0 }

// isSSH tells ssh://user@host from other entry points.
func isSSH(spec string) bool { return strings.HasPrefix(spec, "ssh://") }

// StdioPreamble is what `meshd stdio` says first.
const StdioPreamble = stream.Preamble

// CheckSSH says what is wrong with ssh://[USER@]HOST[:PORT], as Config.Join takes it.
func CheckSSH(spec string) error {
	_, err := stream.ParseSSH(spec)
	return err
}

// joinNames are the entry points as they may be shown: never an invite.
func joinNames(specs []string) []string {
	shown := make([]string, len(specs))
	for i, s := range specs {
		shown[i] = s
		if keys.IsInvite(s) {
			shown[i] = "an invite"
		}
	}
	return shown
}

// resolveEntries reads --join. When joining, at least one way must come of it; a
// member goes on without.
func (n *Node) resolveEntries(ctx context.Context, must bool) (*entryPoints, error) {
	e := new(entryPoints)
	hosts, err := n.readEntries(e, must)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, host := range hosts {
		t, err := tlsEntryOf(host)
		if err != nil {
			return nil, err
		}
		addrs, err := n.resolve(ctx, host)
		if err != nil {
			errs = append(errs, err)
		}
		e.addrs = append(e.addrs, addrs...)
		if n.streams.tcp && (err == nil || n.proxied(t)) { // a proxy may know the name
			e.tls = append(e.tls, t)
		}
	}
	e.addrs = n.throughNAT64(ctx, e.addrs)
	if must && e.empty() {
		return nil, fmt.Errorf("join: %w", errors.Join(errs...))
	}
	for _, err := range errs {
		n.event(Warning, err.Error())
	}
	return e, nil
}

// awaitEntries is resolveEntries. Who joins and gets no answer from a name server asks again: the network
// may not be there yet.
func (n *Node) awaitEntries(ctx context.Context, joining bool) (*entryPoints, error) {
	for wait := time.Second; ; wait = min(2*wait, entriesEvery) {
		e, err := n.resolveEntries(ctx, joining)
		if !joining || !noNameServer(err) {
			return e, err
		}
		n.event(Warning, fmt.Sprintf("%v; it is asked again in %v", err, wait))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readEntries takes the invite and what is for ssh out of --join, and returns
// the hosts.
func (n *Node) readEntries(e *entryPoints, must bool) (hosts []string, err error) {
	for _, spec := range n.cfg.Join {
		switch {
		case isSSH(spec):
			target, err := stream.ParseSSH(spec)
			if err != nil {
				return nil, fmt.Errorf("join over ssh: %w", err) // not the text, which may have a password
			}
			target.Terminal = n.cfg.Terminal
			e.ssh = append(e.ssh, target)
			continue
		case !keys.IsInvite(spec):
			hosts = append(hosts, spec)
			continue
		}
		invite, err := keys.ParseInvite(spec, time.Now())
		expired := errors.Is(err, keys.ErrExpired)
		if err != nil && !expired {
			return nil, fmt.Errorf("join: invite: %w", err)
		}
		if expired && !must {
			continue
		}
		if e.invite != nil {
			return nil, errors.New("join: more than one invite was given")
		}
		e.invite, e.stale = invite, err
		hosts = append(hosts, invite.Entries...)
	}
	return hosts, nil
}

// splitEntry reads HOST[:PORT]; a port of 0 stands for none.
func splitEntry(spec string) (host string, port uint16, err error) {
	host = spec
	if h, p, err := net.SplitHostPort(spec); err == nil {
		number, err := strconv.ParseUint(p, 10, 16)
		if err != nil || number == 0 {
			return "", 0, fmt.Errorf("resolve %q: port %q is not between 1 and 65535", spec, p)
		}
		host, port = h, uint16(number)
	}
	return strings.Trim(host, "[]"), port, nil
}

func tlsEntryOf(spec string) (tlsEntry, error) {
	host, port, err := splitEntry(spec)
	if err != nil {
		return tlsEntry{}, err
	}
	t := tlsEntry{host, []string{strconv.Itoa(tlsPort)}}
	if port != 0 && port != tlsPort {
		t.ports = append(t.ports, strconv.Itoa(int(port)))
	}
	return t, nil
}

// addresses are HOST:PORT for each port.
func (t tlsEntry) addresses() []string {
	list := make([]string, len(t.ports))
	for i, p := range t.ports {
		list[i] = net.JoinHostPort(t.host, p)
	}
	return list
}

// proxied says that a proxy is to be used for a host.
func (n *Node) proxied(t tlsEntry) bool {
	by, err := n.cfg.Proxy(t.addresses()[0])
	return err != nil || by != nil
}

// resolve looks up HOST[:PORT].
func (n *Node) resolve(ctx context.Context, spec string) ([]netip.AddrPort, error) {
	host, port, err := splitEntry(spec)
	if err != nil {
		return nil, err
	}
	if port == 0 {
		port = DefaultPort
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	addrs, err := n.resolveHost(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", host, err)
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, port))
	}
	return out, nil
}

// entryWay is one way to an entry point.
type entryWay struct {
	name string
	// reach returns the address to say hello at.
	reach func(ctx context.Context) (netip.AddrPort, error)
	limit time.Duration // for all of it
}

// waysTo lists the ways to all entry points: UDP at once, and TLS beside it when
// that has been silent for a second.
func (n *Node) waysTo(e *entryPoints, limit time.Duration) []entryWay {
	var list []entryWay
	for _, at := range e.addrs {
		list = append(list, wayAt(at, limit))
	}
	for _, t := range e.tls {
		var wait time.Duration
		if len(e.addrs) > 0 {
			wait = streamAfter
		}
		list = append(list, entryWay{"TLS to " + t.host, func(ctx context.Context) (netip.AddrPort, error) {
			if err := pauseFor(ctx, wait); err != nil {
				return netip.AddrPort{}, hello.ErrNoAnswer
			}
			return n.callEntry(ctx, way.TCP, "entry "+t.addresses()[0], func(ctx context.Context) (io.ReadWriteCloser, error) {
				return n.streams.client.Dial(ctx, t.addresses(), nil)
			})
		}, limit})
	}
	for _, target := range e.ssh {
		list = append(list, entryWay{target.String(), func(ctx context.Context) (netip.AddrPort, error) {
			return n.callEntry(ctx, way.SSH, target.String(), target.Dial)
		}, max(limit, sshPatience)})
	}
	return list
}

// wayAt is the way to an address that needs no more.
func wayAt(at netip.AddrPort, limit time.Duration) entryWay {
	return entryWay{at.String(), func(context.Context) (netip.AddrPort, error) { return at, nil }, limit}
}

func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// callEntry opens a stream to an entry point and waits until it is there.
func (n *Node) callEntry(ctx context.Context, class way.Class, key string, dial stream.Dial) (netip.AddrPort, error) {
	var addr netip.AddrPort
	if err := n.do(ctx, func() { addr = n.openLine(class, key, dial, keys.NodeID{}, time.Now()) }); err != nil {
		return addr, err
	}
	err := n.streams.carriers[class].Await(ctx, addr)
	if err != nil && class != way.SSH {
		_ = n.do(context.WithoutCancel(ctx), func() {
			if l := n.state.lines[addr]; l != nil && l.member.IsZero() {
				n.hangUp(addr, l)
			}
		})
	}
	return addr, err
}

// meeting is what came of one way.
type meeting struct {
	result *hello.Result
	at     netip.AddrPort
	err    error
	spoke  bool // somebody was there: the error is what they said
}

// meetFirst says hello on all ways at once and returns who answers first, and
// where.
func (n *Node) meetFirst(ctx context.Context, ways []entryWay, cfg hello.Config) (*hello.Result, netip.AddrPort, error) {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	meetings := make(chan meeting, len(ways))
	for _, w := range ways {
		go func() { meetings <- n.meetBy(ctx, w, cfg) }()
	}
	var failed []meeting
	for range ways {
		m := <-meetings
		if m.err == nil {
			return m.result, m.at, nil
		}
		failed = append(failed, m)
	}
	return nil, netip.AddrPort{}, firstOf(outer.Err(), failureOf(failed))
}

// meetBy says hello on one way.
func (n *Node) meetBy(ctx context.Context, w entryWay, cfg hello.Config) (m meeting) {
	ctx, cancel := context.WithTimeout(ctx, w.limit)
	defer cancel()
	if m.at, m.err = w.reach(ctx); m.err == nil {
		m.result, m.err = n.engine.Meet(ctx, m.at, cfg)
		m.spoke = m.err != nil && ctx.Err() == nil && !errors.Is(m.err, hello.ErrNoAnswer)
	}
	if errors.Is(m.err, context.DeadlineExceeded) {
		m.err = hello.ErrNoAnswer
	}
	if m.err != nil {
		m.err = fmt.Errorf("%s: %w", w.name, m.err)
	}
	return m
}

// failureOf is what to say when no way has led anywhere: a refusal says more than
// a silence, and what kept streams from being opened is said besides.
func failureOf(failed []meeting) error {
	var silent, other error
	for _, m := range failed {
		switch {
		case m.spoke:
			return m.err
		case errors.Is(m.err, hello.ErrNoAnswer):
			silent = firstOf(silent, m.err)
		default:
			other = firstOf(other, m.err)
		}
	}
	if silent != nil && other != nil {
		return fmt.Errorf("%w; %v", silent, other)
	}
	return firstOf(silent, other)
}

// meetAgain says hello for a short while, and reports whether it has met somebody.
// Who it is, the observer hears.
func (n *Node) meetAgain(ctx context.Context, ways []entryWay, cfg hello.Config) bool {
	_, at, err := n.meetFirst(ctx, ways, cfg)
	if err != nil {
		n.log.Debug("meet an entry point again", "addr", at.String(), "err", err)
	}
	return err == nil
}
