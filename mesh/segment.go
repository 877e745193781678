package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/names"
	"meshd/peer"
)

// hostSide is what a Device may know about the host's interface behind it. A
// TAP does; the in-memory twin need not.
type hostSide interface {
	SetAddresses(addrs []netip.Prefix) error
	Problems() []l2.Problem
	Remove() error
}

// detour keeps marked packets out of the TAP (package underlay).
type detour interface {
	// Sync takes account of routes that have changed.
	Sync() error
	// Guard is the part of Sync that takes account of a firewall that has changed.
	Guard() error
	// Complete reports whether it keeps out all of them.
	Complete() bool
	Close() error
}

// lanes is a remote as the switch wants it.
type lanes struct{ *peer.Remote }

// Lane implements l2.Laned.
func (l lanes) Lane(n int) l2.Port { return l.Remote.Lane(n) }

// openSegment makes the host's side of the segment: TAP, switch and names.
func (n *Node) openSegment(prefixes []netip.Prefix, mtu int) (*segment, error) {
	id := n.self
	s := &segment{mac: macOf(id)}
	if !n.cfg.NoTAP {
		// Written first: whatever happens next, `down` knows what to clean up.
		if err := noteTAP(n.store, n.cfg.TAP); err != nil {
			return nil, err
		}
		device, err := n.cfg.Host.OpenSegment(l2.TAPConfig{Name: n.cfg.TAP, MTU: mtu, MAC: s.mac, Persist: true, Queues: parallel()})
		if err != nil {
			return nil, err
		}
		s.device = device
		s.goAround(n)
	}
	if err := s.setAddresses(ownAddresses(id, prefixes)); err != nil {
		return nil, errors.Join(err, n.dropSegment(s))
	}
	s.sw = n.newSwitch(s, mtu)
	n.sw.Store(s.sw)
	if err := s.listenPlugs(n.cfg.Plugs); err != nil {
		return nil, errors.Join(err, n.dropSegment(s))
	}
	if n.cfg.NoDNS {
		return s, nil
	}
	server, err := names.Listen(names.Config{Addr: n.cfg.DNS, Logger: n.log})
	if err != nil {
		n.event(Warning, fmt.Sprintf("names are not answered: %v", err))
	}
	s.names = server
	return s, nil
}

// dropSegment undoes openSegment.
func (n *Node) dropSegment(s *segment) error {
	if err := s.close(false); err != nil || n.cfg.NoTAP {
		return err
	}
	return forgetTAP(n.store)
}

// newSwitch makes the switch, with what a LAN behind it needs if there is to be one.
func (n *Node) newSwitch(s *segment, mtu int) *l2.Switch {
	cfg := l2.Config{
		Device: s.device, MAC: s.mac, MTU: mtu, Logger: n.log,
		GroupsChanged: n.wake, Everyone: n.everyone(), Epoch: n.state.dir.Epoch(), Observe: n.overheard,
	}
	if n.cfg.Bridge == "" || s.device == nil {
		return l2.NewSwitch(cfg)
	}
	s.lan = n.newLANSide()
	cfg.LAN = s.lan
	s.lan.sw = l2.NewSwitch(cfg)
	return s.lan.sw
}

// goAround has the underlay's packets routed around the TAP, on a host that can do
// so. A node without the right for it runs all the same.
func (s *segment) goAround(n *Node) {
	host, ok := n.cfg.Host.(interface {
		GoAround(tap string) (detour, error)
	})
	if !ok {
		return
	}
	if s.around, s.inside = host.GoAround(n.cfg.TAP); s.inside != nil {
		s.around = nil
		n.log.Info("routes are not kept apart", "err", s.inside)
		return
	}
	n.state.schedule.gather = time.Time{} // addresses count now that did not before
}

// complete reports whether the underlay's packets go around the TAP wherever they go.
func (s *segment) complete() bool { return s != nil && s.around != nil && s.around.Complete() }

// exclude tells the engine which addresses are the mesh's own.
func (n *Node) exclude(prefixes []netip.Prefix) {
	if !n.state.segment.complete() {
		n.engine.Exclude(prefixes)
		return
	}
	var addrs []netip.Addr
	for _, d := range n.state.dir.Members() {
		addrs = append(addrs, addrsOf(ownAddresses(d.ID, prefixes))...)
	}
	n.engine.ExcludeMembers(prefixes, addrs)
}

// hostChanged takes account of routes that have changed.
func (s *segment) hostChanged(n *Node) {
	if s == nil {
		return
	}
	s.sw.AskGroups() // the TAP may have come into a bridge
	if s.lan != nil {
		s.bridging.dirty = true
		s.lan.hostChanged()
	}
	if s.around == nil {
		return
	}
	if err := s.around.Sync(); err != nil {
		n.log.Warn("keep routes apart", "err", err)
	}
	n.exclude(n.prefixes()) // the TAP may have come into a bridge, or out of it
}

// guardEvery is how often it is looked whether somebody has flushed the firewall.
const guardEvery = 10 * time.Second

// keepGuard keeps the underlay's packets out of the bridge that the TAP is in.
func (n *Node) keepGuard(now time.Time) {
	s := n.state.segment
	if s == nil || s.around == nil || now.Before(n.state.schedule.guard) {
		return
	}
	n.state.schedule.guard = now.Add(guardEvery)
	was := s.complete()
	err := s.around.Guard()
	if s.complete() == was {
		return
	}
	if err != nil {
		n.log.Warn("keep the underlay out of the bridge", "err", err)
	}
	n.exclude(n.prefixes())
}

// run serves the segment until ctx ends.
func (s *segment) run(ctx context.Context, n *Node) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.keepStations(ctx, n) })
	device := ctx
	if s.lan != nil { // its last word goes out of the device
		var end context.CancelFunc
		device, end = context.WithCancel(context.WithoutCancel(ctx))
		group.Go(func() error { defer end(); s.lan.run(ctx); return nil })
	}
	group.Go(func() error { return s.sw.Run(device) })
	s.servePlugs(ctx, group, n)
	if s.names != nil {
		group.Go(func() error { return s.names.Run(ctx) })
		group.Go(func() error { n.registerNames(ctx, s.names.Addr()); return nil })
	}
	return group.Wait()
}

// portDecided waits until a port to a LAN has listened: before, nobody beyond it reaches this node.
func (s *segment) portDecided(ctx context.Context) error {
	if s.lan == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.lan.decided:
		return nil
	}
}

// registerNames has systemd-resolved ask our name server, where it runs.
func (n *Node) registerNames(ctx context.Context, server netip.AddrPort) {
	iface, err := net.InterfaceByName(n.cfg.TAP)
	if n.cfg.NoTAP || err != nil {
		return
	}
	reg, err := names.Register(ctx, iface.Index, server)
	if err != nil {
		n.log.Info("names are answered on this host", "server", server.String(), "hint", names.Hint(server))
		return
	}
	if err := reg.Run(ctx); err != nil {
		n.log.Warn("systemd-resolved lost our names", "err", err)
	}
	if err := reg.Close(); err != nil {
		n.log.Warn("take names back from systemd-resolved", "err", err)
	}
}

// setAddresses is level-triggered.
func (s *segment) setAddresses(addrs []netip.Prefix) error {
	if s.bridging.on != nil {
		return s.bridging.on.SetAddresses(addrs)
	}
	if host, ok := s.device.(hostSide); ok {
		return host.SetAddresses(addrs)
	}
	return nil
}

// close ends the host's side; keep leaves the interface to the next process.
// The name server has closed itself when run ended.
func (s *segment) close(keep bool) error {
	var errs []error
	if s.around != nil {
		errs = append(errs, s.around.Close())
	}
	errs = append(errs, s.endBridge(keep))
	for _, l := range s.plugs {
		errs = append(errs, l.Close())
	}
	host, ok := s.device.(hostSide)
	switch {
	case s.device == nil:
	case ok && !keep:
		errs = append(errs, host.Remove())
	default:
		errs = append(errs, s.device.Close())
	}
	return errors.Join(errs...)
}

// ownAddresses are the stable addresses of a node, one in each prefix.
func ownAddresses(id keys.NodeID, prefixes []netip.Prefix) []netip.Prefix {
	addrs := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		addrs = append(addrs, netip.PrefixFrom(keys.Address(id, p), p.Bits()))
	}
	return addrs
}

// hostRoutes are the prefixes that have the addresses alone.
func hostRoutes(prefixes []netip.Prefix) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		list = append(list, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	return list
}

// macOf is the address of a member's TAP.
func macOf(id keys.NodeID) l2.MAC { return l2.MAC(keys.MAC(id)) }

func addrsOf(prefixes []netip.Prefix) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(prefixes))
	for _, p := range prefixes {
		addrs = append(addrs, p.Addr())
	}
	return slices.Clip(addrs)
}
