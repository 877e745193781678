package names

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"meshd/keys"
)

const (
	// Domain is the zone, without its last dot.
	Domain = keys.Domain
	apex   = Domain + "."
	// nameServer is the zone's own server in SOA and NS records (RFC 1035 wants one).
	nameServer = "ns." + apex
	mailbox    = "nobody." + apex
	// ttl is how long, in seconds, an answer may be kept: addresses follow keys and do not change.
	ttl = 30
	// negativeTTL is how long it may be kept that there is no such name: a member may join at any moment.
	negativeTTL = 5
	// maxLabel is the longest name of a member (RFC 1035, section 2.3.4).
	maxLabel = 63
)

// zone is one immutable state of what is known.
type zone struct {
	serial  uint32
	forward map[string][]netip.Addr
	reverse map[netip.Addr]string
	// local are the unique local /64s in which members have addresses: nobody else answers for those.
	local map[netip.Prefix]bool
}

// newZone copies names. What cannot be a host's label is left out.
func newZone(serial uint32, names map[string][]netip.Addr) *zone {
	z := &zone{serial: serial, forward: map[string][]netip.Addr{}, reverse: map[netip.Addr]string{}, local: map[netip.Prefix]bool{}}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		label := strings.ToLower(name)
		if !validLabel(label) {
			continue
		}
		for _, a := range names[name] {
			a = a.Unmap().WithZone("")
			if !a.IsValid() || a.IsUnspecified() {
				continue
			}
			z.forward[label] = append(z.forward[label], a)
			if _, taken := z.reverse[a]; !taken {
				z.reverse[a] = label
			}
			if a.Is6() && a.IsPrivate() {
				z.local[netip.PrefixFrom(a, 64).Masked()] = true
			}
		}
	}
	return z
}

// validLabel accepts letters, digits and inner hyphens (RFC 1123, section 2.1).
func validLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// answer is the reply to a query. It never returns nil.
func (z *zone) answer(query *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	if query.Opcode != dns.OpcodeQuery {
		return m.SetRcode(query, dns.RcodeNotImplemented)
	}
	if len(query.Question) != 1 {
		return m.SetRcode(query, dns.RcodeFormatError)
	}
	m.SetReply(query)
	m.RecursionDesired = query.RecursionDesired
	q := query.Question[0]
	if opt := query.IsEdns0(); opt != nil {
		m.SetEdns0(maxUDPSize, false)
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	name := strings.ToLower(q.Name)
	switch {
	case q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY:
		m.Rcode = dns.RcodeRefused
	case dns.IsSubDomain(apex, name):
		z.answerForward(m, q, name)
	default:
		z.answerReverse(m, q, name)
	}
	return m
}

// answerForward answers inside mesh.internal.
func (z *zone) answerForward(m *dns.Msg, q dns.Question, name string) {
	m.Authoritative = true
	if name == apex {
		z.answerApex(m, q)
		return
	}
	addrs, ok := z.forward[strings.TrimSuffix(name, "."+apex)]
	if !ok && name != nameServer {
		m.Rcode = dns.RcodeNameError
	}
	for _, a := range addrs {
		hdr := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: ttl}
		switch {
		case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
			hdr.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: hdr, AAAA: a.AsSlice()})
		case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
			hdr.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: hdr, A: a.AsSlice()})
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{z.soa(apex)}
	}
}

// answerApex answers for the zone itself.
func (z *zone) answerApex(m *dns.Msg, q dns.Question) {
	if q.Qtype == dns.TypeSOA || q.Qtype == dns.TypeANY {
		m.Answer = append(m.Answer, z.soa(q.Name))
	}
	if q.Qtype == dns.TypeNS || q.Qtype == dns.TypeANY {
		hdr := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: ttl}
		m.Answer = append(m.Answer, &dns.NS{Hdr: hdr, Ns: nameServer})
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{z.soa(apex)}
	}
}

// answerReverse answers for the addresses of members, and for all of the unique local prefixes that they are in. Other addresses of a
// public prefix have a server of their own.
func (z *zone) answerReverse(m *dns.Msg, q dns.Question, name string) {
	addr, ok := reverseAddr(name)
	label, known := z.reverse[addr]
	if !ok || !known && !(addr.Is6() && z.local[netip.PrefixFrom(addr, 64).Masked()]) {
		m.Rcode = dns.RcodeRefused
		return
	}
	m.Authoritative = true
	switch {
	case !known:
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{z.soa(q.Name)}
	case q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY:
		hdr := dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}
		m.Answer = []dns.RR{&dns.PTR{Hdr: hdr, Ptr: label + "." + apex}}
	default:
		m.Ns = []dns.RR{z.soa(q.Name)}
	}
}

// soa says how long a negative answer may be kept (RFC 2308).
func (z *zone) soa(owner string) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: negativeTTL},
		Ns:  nameServer, Mbox: mailbox, Serial: z.serial, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: negativeTTL,
	}
}

const (
	reverse6 = ".ip6.arpa."
	reverse4 = ".in-addr.arpa."
)

// reverseAddr is the address that a lower-case reverse name stands for (RFC 3596, section 2.5; RFC 1035, section 3.5).
func reverseAddr(name string) (netip.Addr, bool) {
	if digits, ok := strings.CutSuffix(name, reverse4); ok {
		labels := strings.Split(digits, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	digits, ok := strings.CutSuffix(name, reverse6)
	if !ok || len(digits) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		// The least significant nibble comes first.
		v := strings.IndexByte("0123456789abcdef", digits[2*i])
		if v < 0 || i < 31 && digits[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(v << (4 * (i % 2)))
	}
	return netip.AddrFrom16(b), true
}
