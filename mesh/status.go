package mesh

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"meshd/mesh/api"
	"meshd/mesh/directory"
	"meshd/peer"
	"meshd/peer/udp"
	"meshd/peer/way"
)

// hosts is the broadcast domain as this node knows it.
func (n *Node) hosts() []api.Host {
	if n.state.segment == nil {
		return []api.Host{}
	}
	byID := map[string]*directory.Member{}
	for _, d := range n.state.dir.Members() {
		byID[d.ID.String()] = d
	}
	self := n.self.String()
	prefixes := n.prefixes()
	hosts := []api.Host{}
	for _, h := range n.state.segment.sw.Hosts() {
		id := h.Port
		if id == "" {
			id = self
		}
		a := api.Host{
			MAC: h.MAC.String(), VLAN: h.VLAN, Addresses: append([]netip.Addr{}, h.IPs...), MemberID: id,
			Source: h.Learned, AgeSeconds: h.Age.Seconds(),
		}
		if d := byID[id]; d != nil {
			a.Member = d.Display
			if h.MAC == macOf(d.ID) {
				a.Addresses = union(addrsOf(ownAddresses(d.ID, prefixes)), a.Addresses)
			}
		}
		hosts = append(hosts, a)
	}
	return hosts
}

// transport names the kind of path to an address, as in CONTRACT.
func transport(a netip.AddrPort) string {
	switch {
	case !a.IsValid():
		return ""
	case way.ClassOf(a) == way.TCP:
		return "tcp"
	case way.ClassOf(a) == way.SSH:
		return "ssh"
	case a.Addr().Is4():
		return "udp4"
	default:
		return "udp6"
	}
}

// peerState says how a member is connected.
func (n *Node) peerState(m *member, st peer.Status, now time.Time) api.PeerState {
	switch {
	case st.Up && way.ClassOf(st.Endpoint) == way.Relayed:
		return api.StateRelayed
	case st.Up:
		return api.StateDirect
	case m.left:
		return api.StateOffline
	case n.state.gossip.GivenUp(st.ID): // it may be tried all the same
		return api.StateOffline
	case st.Wanted && now.Sub(st.WantedSince) < offlineAfter:
		return api.StateConnecting
	case st.Wanted:
		return api.StateOffline
	case n.state.gossip.Alive(st.ID):
		return api.StateIdle
	default:
		return api.StateOffline
	}
}

// describe is one member for status.
func (n *Node) describe(d *directory.Member, m *member, now time.Time) api.Peer {
	st := m.remote.Status()
	p := api.Peer{
		ID: d.ID.String(), Name: d.Display, Roles: d.Certificate.Roles,
		Addresses: addrsOf(ownAddresses(d.ID, n.prefixes())), MAC: macOf(d.ID).String(),
		State: n.peerState(m, st, now), Via: []string{}, Paths: []api.Path{},
		TxBytes: st.TxBytes, RxBytes: st.RxBytes, TxBPS: m.tx.bps, RxBPS: m.rx.bps,
		Dropped: st.Dropped, QueueDropped: st.QueueDropped,
		LastSeen: st.LastHeard.UTC(), LastHandshake: st.LastHandshake.UTC(), NATMapping: st.NAT.String(),
	}
	if st.Up {
		p.Transport, p.Endpoint, p.Via = n.wayTo(st, st.Endpoint)
		p.RTTMillis, p.PathMTU = millis(st.RTT), st.PathMTU
	}
	for _, path := range st.Paths {
		share := 0.0
		if path.Active && st.Up {
			share = 1
		}
		transported, endpoint, via := n.wayTo(st, path.Addr)
		p.Paths = append(p.Paths, api.Path{
			Transport: transported, Endpoint: endpoint, Via: via,
			RTTMillis: millis(path.RTT), Loss: path.Loss, Share: share, Up: path.Up,
		})
	}
	return p
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// status is everything, for the commands.
func (n *Node) status(now time.Time) *api.Status {
	st := &api.Status{Version: n.cfg.Version, Peers: []api.Peer{}, Relaying: []api.Relaying{}, Health: n.health(now)}
	st.Self = n.describeSelf(now)
	s := &n.state
	st.Relaying = n.relaying()
	if s.dir == nil {
		if s.joining != nil {
			st.Self.Waiting = strings.Join(s.joining.machine.Words(), " ")
		}
		return st
	}
	name, _, _ := s.dir.Network()
	st.Network = api.Network{ID: s.membership.trust().NetworkID().String(), Name: name, Prefixes: n.prefixes()}
	for _, d := range s.dir.Members() {
		if m := s.members[d.ID]; m != nil {
			st.Peers = append(st.Peers, n.describe(d, m, now))
		}
	}
	return st
}

func (n *Node) describeSelf(now time.Time) api.Self {
	id := n.self
	self := api.Self{
		ID: id.String(), Name: n.cfg.Name, Roles: []string{}, Addresses: []netip.Addr{}, MAC: macOf(id).String(),
		MTU: DefaultMTU, Endpoints: []api.Endpoint{}, UptimeSeconds: now.Sub(n.started).Seconds(), Ready: n.ready.Load(),
	}
	if !n.cfg.NoTAP {
		self.TAP = n.cfg.TAP
	}
	result := n.state.self.stun.Result(now)
	self.NAT = api.NAT{Mapping: result.Mapping.String(), UDP: result.UDP}
	if n.state.dir == nil {
		return self
	}
	_, _, mtu := n.state.dir.Network()
	self.MTU, self.Addresses = mtu, addrsOf(ownAddresses(id, n.prefixes()))
	if d := n.state.dir.Member(id); d != nil {
		self.Name, self.Roles = d.Display, d.Certificate.Roles
		self.CertificateExpires = d.Certificate.NotAfter.UTC()
	}
	self.Bridge = n.state.segment.describeBridge(n.displayOf)
	byUDP, _ := n.reachedBy()
	self.NAT.UDP = self.NAT.UDP || byUDP > 0
	for _, c := range n.state.self.list {
		self.Endpoints = append(self.Endpoints, api.Endpoint{Addr: c.Addr.String(), Kind: api.EndpointKind(c.Kind.String())})
	}
	for _, e := range n.ownTLSEndpoints() {
		self.Endpoints = append(self.Endpoints, api.Endpoint{Addr: e.Addr.String(), Kind: api.EndpointTLS})
	}
	return self
}

// health lists what is not as it should be.
func (n *Node) health(now time.Time) []api.Health {
	list := []api.Health{}
	if n.state.segment != nil {
		if host, ok := n.state.segment.device.(hostSide); ok {
			for _, p := range host.Problems() {
				list = append(list, api.Health{Code: p.Code, Severity: api.SeverityWarning, Text: p.Text, Remedy: p.Remedy})
			}
		}
	}
	if s := n.state.segment; s != nil && s.inside != nil {
		list = append(list, api.Health{
			Code: "underlay-unmarked", Severity: api.SeverityWarning,
			Text:   "packets that carry the mesh are not routed around it: " + s.inside.Error(),
			Remedy: "grant CAP_NET_ADMIN; without it, let no route into the mesh cover the internet or this host's own network",
		})
	}
	list = append(list, n.state.segment.bridgeHealth(n.cfg.Bridge)...)
	list = append(list, bufferHealth(n.conns)...)
	list = append(list, n.streamHealth()...)
	list = append(list, n.stationHealth()...)
	list = append(list, n.surroundingHealth(now)...)
	list = append(list, n.routingHealth()...)
	if n.state.dir != nil {
		list = append(list, certificateHealth(n.state.dir.Member(n.self))...)
	}
	for alarm, at := range n.state.alarms {
		list = append(list, api.Health{
			Code: "record-" + alarmCode(alarm.Kind), Severity: api.SeverityError,
			Text:   fmt.Sprintf("member %s: %s, seen at %s", alarm.Owner, alarmCode(alarm.Kind), at.UTC().Format(time.RFC3339)),
			Remedy: "make sure that no second machine runs with a copy of this state directory",
		})
	}
	return list
}

// bufferHealth warns of socket buffers that are smaller than meshd asks for.
func bufferHealth(conns []udp.Conn) []api.Health {
	rcv, snd := udp.DefaultBuffer, udp.DefaultBuffer
	for _, conn := range conns {
		if c, ok := conn.(interface{ Buffers() (rcv, snd int) }); ok { // the in-memory twin has none
			r, s := c.Buffers()
			rcv, snd = min(rcv, r), min(snd, s)
		}
	}
	if rcv == udp.DefaultBuffer && snd == udp.DefaultBuffer {
		return nil
	}
	h := api.Health{
		Code: "socket-buffers", Severity: api.SeverityWarning,
		Text:   fmt.Sprintf("socket buffers hold %d KiB to receive and %d KiB to send instead of %d: bursts lose packets", rcv>>10, snd>>10, udp.DefaultBuffer>>10),
		Remedy: "raise the system's limit for socket buffers",
	}
	if runtime.GOOS == "linux" {
		h.Remedy = fmt.Sprintf("start as root, or set net.core.rmem_max and net.core.wmem_max to %d with sysctl, and restart", udp.DefaultBuffer)
	}
	return []api.Health{h}
}

// certificateHealth warns of a certificate whose time is over or has not begun.
// The node stays a member all the same (DESIGN.md, decision 5).
func certificateHealth(own *directory.Member) []api.Health {
	switch {
	case own == nil:
		return nil
	case own.Expired:
		return []api.Health{{
			Code: "certificate-expired", Severity: api.SeverityWarning,
			Text:   "this node's certificate expired at " + own.Certificate.NotAfter.UTC().Format(time.RFC3339),
			Remedy: "bring an admin's node back, which renews it; check this host's clock",
		}}
	case own.Early:
		return []api.Health{{
			Code: "certificate-early", Severity: api.SeverityWarning,
			Text:   "this node's certificate is not valid before " + own.Certificate.NotBefore.UTC().Format(time.RFC3339),
			Remedy: "check this host's clock",
		}}
	}
	return nil
}

// union appends to list what is not in it yet.
func union(list, more []netip.Addr) []netip.Addr {
	for _, a := range more {
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// alarmCode names an alarm in status.
func alarmCode(k directory.AlarmKind) string {
	switch k {
	case directory.Equivocation:
		return "equivocation"
	case directory.StateLoss:
		return "state-loss"
	case directory.SelfRevoked:
		return "revoked"
	default:
		return "unknown"
	}
}
