package dhcp4

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	// DefaultLease is how long an address is a client's.
	DefaultLease = time.Hour
	// probeFor is how long the segment is asked whether somebody has an address.
	probeFor  = 300 * time.Millisecond
	lookAgain = 50 * time.Millisecond
	// maxPending bounds who waits for an offer.
	maxPending = 64

	portServer, portClient = 67, 68
)

// MAC is an Ethernet address.
type MAC = [6]byte

// Config is what clients are told.
type Config struct {
	MAC    MAC          // of this server
	Subnet netip.Prefix // IPv4, /16 to /29; the first address is the router's, and ours
	DNS    []netip.Addr
	Lease  time.Duration
	MTU    int // 0: it is not said
}

// Router is the subnet's first address.
func (c Config) Router() netip.Addr { return c.Subnet.Masked().Addr().Next() }

// Server is a DHCP server.
type Server struct {
	cfg     Config
	table   *table
	pending map[string]*offer // by key
	out     [][]byte
	changed bool
}

// offer is one that waits until nobody has said that the address is in use.
type offer struct {
	request *dhcpv4.DHCPv4
	mac     MAC
	ip      netip.Addr
	due     time.Time
}

// New begins with the leases that there are.
func New(cfg Config, leases []Lease) *Server {
	if cfg.Lease <= 0 {
		cfg.Lease = DefaultLease
	}
	return &Server{cfg: cfg, table: newTable(cfg.Subnet, leases), pending: map[string]*offer{}}
}

// Leases lists who has an address.
func (s *Server) Leases() []Lease { return s.table.leases() }

// Changed reports whether leases have changed since the last call.
func (s *Server) Changed() bool {
	was := s.changed
	s.changed = false
	return was
}

// Receive takes a frame. What is no request of a client on the segment itself is
// passed over.
func (s *Server) Receive(frame []byte, now time.Time) {
	payload, src, ok := parse(frame)
	if !ok {
		return
	}
	m, err := dhcpv4.FromBytes(payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest || len(m.ClientHWAddr) != 6 || !m.GatewayIPAddr.IsUnspecified() && m.GatewayIPAddr != nil {
		return
	}
	mac := MAC(m.ClientHWAddr)
	if mac != src || mac[0]&1 != 0 {
		return // a relay, or one who speaks for another
	}
	key := string(m.Options.Get(dhcpv4.OptionClientIdentifier))
	if key == "" || len(key) > maxKey {
		key = string(mac[:])
	}
	server := ipOf(m.ServerIdentifier())
	ours := server == s.cfg.Router()
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		s.discover(m, mac, key, now)
	case dhcpv4.MessageTypeRequest:
		s.request(m, mac, key, server, now)
	case dhcpv4.MessageTypeRelease:
		if l := s.table.of(key); ours && l != nil && l.IP == ipOf(m.ClientIPAddr) {
			l.Until = now
			s.changed = true
		}
	case dhcpv4.MessageTypeDecline:
		if l := s.table.of(key); ours && l != nil && l.IP == ipOf(m.RequestedIPAddress()) {
			s.table.shun(l.IP, mac, now)
			s.changed = true
		}
	case dhcpv4.MessageTypeInform:
		if ip := ipOf(m.ClientIPAddr); s.cfg.Subnet.Contains(ip) {
			s.reply(m, mac, dhcpv4.MessageTypeAck, netip.Addr{})
		}
	}
}

// discover looks for an address and asks the segment whether somebody has it, unless
// it is the client's already.
func (s *Server) discover(m *dhcpv4.DHCPv4, mac MAC, key string, now time.Time) {
	if p := s.pending[key]; p != nil {
		p.request = m
		return
	}
	if len(s.pending) >= maxPending || !s.table.admit(mac, key, now) {
		return
	}
	l := s.table.of(key)
	ip := s.table.choose(key, ipOf(m.RequestedIPAddress()), now)
	if !ip.IsValid() {
		return
	}
	known := l != nil && l.IP == ip && l.Taken && now.Before(l.Until)
	if !known {
		s.table.put(Lease{Key: key, IP: ip, MAC: mac, Until: now.Add(heldFor)})
	}
	o := &offer{request: m, mac: mac, ip: ip, due: now}
	if !known {
		o.due = now.Add(probeFor)
		s.out = append(s.out, s.probe(ip))
	}
	s.pending[key] = o
}

// request confirms what was offered, or what the client had (RFC 2131, section 4.3.2).
func (s *Server) request(m *dhcpv4.DHCPv4, mac MAC, key string, server netip.Addr, now time.Time) {
	ip := ipOf(m.RequestedIPAddress())
	if !ip.IsValid() || ip.IsUnspecified() {
		ip = ipOf(m.ClientIPAddr)
	}
	l := s.table.of(key)
	switch {
	case server.IsValid() && server != s.cfg.Router(): // it has chosen another
		if l != nil && !l.Taken {
			s.table.drop(key)
		}
		return
	case l != nil && l.IP == ip:
		s.table.put(Lease{Key: key, IP: ip, MAC: mac, Until: now.Add(s.cfg.Lease), Taken: true})
		s.changed = true
		s.reply(m, mac, dhcpv4.MessageTypeAck, ip)
	case l != nil || server.IsValid() || !s.cfg.Subnet.Contains(ip): // else we know nothing of it
		s.reply(m, mac, dhcpv4.MessageTypeNak, netip.Addr{})
	}
}

// Poll returns what is to be sent, and when to call again; zero: not before Receive.
// held says who has an address, as far as was heard on the segment.
func (s *Server) Poll(now time.Time, held func(netip.Addr) (MAC, bool)) (frames [][]byte, next time.Time) {
	keys := make([]string, 0, len(s.pending))
	for key := range s.pending {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		o := s.pending[key]
		mac, used := held(o.ip)
		switch {
		case used && mac != o.mac:
			s.table.shun(o.ip, MAC{}, now)
			delete(s.pending, key)
			s.discover(o.request, o.mac, key, now) // another address
		case !now.Before(o.due):
			delete(s.pending, key)
			s.reply(o.request, o.mac, dhcpv4.MessageTypeOffer, o.ip)
		}
	}
	if len(s.pending) > 0 {
		next = now.Add(lookAgain)
	}
	frames, s.out = s.out, nil
	return frames, next
}

// reply queues an answer. ip is the client's; invalid for an answer without one.
func (s *Server) reply(m *dhcpv4.DHCPv4, mac MAC, kind dhcpv4.MessageType, ip netip.Addr) {
	router := net.IP(s.cfg.Router().AsSlice())
	with := []dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(router))}
	if kind != dhcpv4.MessageTypeNak {
		with = append(with, dhcpv4.WithNetmask(net.CIDRMask(s.cfg.Subnet.Bits(), 32)), dhcpv4.WithRouter(router))
		for _, a := range s.cfg.DNS {
			with = append(with, dhcpv4.WithDNS(net.IP(a.AsSlice())))
		}
		if s.cfg.MTU > 0 {
			with = append(with, dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(s.cfg.MTU))))
		}
	}
	dst := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	to := MAC{255, 255, 255, 255, 255, 255}
	if ip.IsValid() {
		with = append(with, dhcpv4.WithYourIP(net.IP(ip.AsSlice())), dhcpv4.WithLeaseTime(uint32(s.cfg.Lease/time.Second)))
	}
	if client := ipOf(m.ClientIPAddr); client.IsValid() && !client.IsUnspecified() && kind != dhcpv4.MessageTypeNak {
		dst, to = client, mac
	} else if ip.IsValid() && !m.IsBroadcast() { // it takes what comes to its MAC
		dst, to = ip, mac
	}
	answer, err := dhcpv4.NewReplyFromRequest(m, with...)
	if err == nil && len(s.out) < 4*maxPending {
		s.out = append(s.out, frame(to, s.cfg.MAC, s.cfg.Router(), dst, answer.ToBytes()))
	}
}

func ipOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	return a
}
