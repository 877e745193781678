package names

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// sampleNames are the members of most tests.
func sampleNames() map[string][]netip.Addr {
	addr := netip.MustParseAddr
	return map[string][]netip.Addr{
		"laptop":   {addr("fd12:3456:789a::2"), addr("2001:db8:1::2")},
		"NAS":      {addr("fd12:3456:789a::3"), addr("192.0.2.3")},
		"no name":  {addr("fd12:3456:789a::4")},
		"-hyphen":  {addr("fd12:3456:789a::5")},
		"under_s":  {addr("fd12:3456:789a::6")},
		"zoned":    {addr("fe80::1%eth0")},
		"nowhere":  {{}},
		"bürgi":    {addr("fd12:3456:789a::7")},
		"a.b":      {addr("fd12:3456:789a::8")},
		"anything": nil,
	}
}

// run runs a server on a free port with the sample names.
func run(t *testing.T) *Server {
	t.Helper()
	s, err := Listen(Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	s.SetNames(sampleNames())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func ask(t *testing.T, s *Server, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := &dns.Client{Net: network}
	r, _, err := c.ExchangeContext(t.Context(), m, s.Addr().String())
	if err != nil {
		t.Fatalf("%s: %v", network, err)
	}
	return r
}

func TestAnswers(t *testing.T) {
	s := run(t)
	const (
		laptop  = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa."
		public  = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."
		unknown = "f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa."
		other   = "f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."
	)
	for _, tt := range []struct {
		name  string
		qname string
		qtype uint16
		rcode int
		auth  bool
		want  []string // the answers' data
		soa   bool     // a negative answer says how long it holds
	}{
		{"member", "laptop.mesh.internal.", dns.TypeAAAA, dns.RcodeSuccess, true, []string{"fd12:3456:789a::2", "2001:db8:1::2"}, false},
		{"case does not matter", "LapTop.Mesh.INTERNAL.", dns.TypeAAAA, dns.RcodeSuccess, true, []string{"fd12:3456:789a::2", "2001:db8:1::2"}, false},
		{"name given in capitals", "nas.mesh.internal.", dns.TypeAAAA, dns.RcodeSuccess, true, []string{"fd12:3456:789a::3"}, false},
		{"IPv4, where there is one", "nas.mesh.internal.", dns.TypeA, dns.RcodeSuccess, true, []string{"192.0.2.3"}, false},
		{"any", "nas.mesh.internal.", dns.TypeANY, dns.RcodeSuccess, true, []string{"fd12:3456:789a::3", "192.0.2.3"}, false},
		{"no IPv4", "laptop.mesh.internal.", dns.TypeA, dns.RcodeSuccess, true, nil, true},
		{"other type", "laptop.mesh.internal.", dns.TypeMX, dns.RcodeSuccess, true, nil, true},
		{"nobody", "phone.mesh.internal.", dns.TypeAAAA, dns.RcodeNameError, true, nil, true},
		{"below a member", "www.laptop.mesh.internal.", dns.TypeAAAA, dns.RcodeNameError, true, nil, true},
		{"not a label", `no\032name.mesh.internal.`, dns.TypeAAAA, dns.RcodeNameError, true, nil, true},
		{"begins with a hyphen", "-hyphen.mesh.internal.", dns.TypeAAAA, dns.RcodeNameError, true, nil, true},
		{"two labels given as one", "a.b.mesh.internal.", dns.TypeAAAA, dns.RcodeNameError, true, nil, true},
		{"without address", "anything.mesh.internal.", dns.TypeAAAA, dns.RcodeNameError, true, nil, true},
		{"invalid address", "nowhere.mesh.internal.", dns.TypeAAAA, dns.RcodeNameError, true, nil, true},
		{"scope is taken off", "zoned.mesh.internal.", dns.TypeAAAA, dns.RcodeSuccess, true, []string{"fe80::1"}, false},
		{"the zone's SOA", "mesh.internal.", dns.TypeSOA, dns.RcodeSuccess, true, []string{"ns.mesh.internal. nobody.mesh.internal. 2 3600 600 86400 5"}, false},
		{"the zone's server", "mesh.internal.", dns.TypeNS, dns.RcodeSuccess, true, []string{"ns.mesh.internal."}, false},
		{"the zone has no address", "mesh.internal.", dns.TypeAAAA, dns.RcodeSuccess, true, nil, true},
		{"the server's name is there", "ns.mesh.internal.", dns.TypeAAAA, dns.RcodeSuccess, true, nil, true},
		{"reverse", laptop, dns.TypePTR, dns.RcodeSuccess, true, []string{"laptop.mesh.internal."}, false},
		{"reverse in capitals", strings.ToUpper(laptop), dns.TypePTR, dns.RcodeSuccess, true, []string{"laptop.mesh.internal."}, false},
		{"reverse, public", public, dns.TypePTR, dns.RcodeSuccess, true, []string{"laptop.mesh.internal."}, false},
		{"reverse, IPv4", "3.2.0.192.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, true, []string{"nas.mesh.internal."}, false},
		{"reverse, other type", laptop, dns.TypeAAAA, dns.RcodeSuccess, true, nil, true},
		{"reverse, nobody in our own prefix", unknown, dns.TypePTR, dns.RcodeNameError, true, nil, true},
		{"reverse, nobody in a public prefix", other, dns.TypePTR, dns.RcodeRefused, false, nil, false},
		{"reverse, elsewhere", "1.0.0.127.in-addr.arpa.", dns.TypePTR, dns.RcodeRefused, false, nil, false},
		{"reverse, too short", "a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.", dns.TypePTR, dns.RcodeRefused, false, nil, false},
		{"reverse, too long", "0." + laptop, dns.TypePTR, dns.RcodeRefused, false, nil, false},
		{"reverse, no digits", strings.Replace(laptop, "2.", "x.", 1), dns.TypePTR, dns.RcodeRefused, false, nil, false},
		{"elsewhere", "example.com.", dns.TypeAAAA, dns.RcodeRefused, false, nil, false},
		{"above", "internal.", dns.TypeSOA, dns.RcodeRefused, false, nil, false},
		{"looks like ours", "laptop.notmesh.internal.", dns.TypeAAAA, dns.RcodeRefused, false, nil, false},
		{"root", ".", dns.TypeNS, dns.RcodeRefused, false, nil, false},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(tt.name+"/"+network, func(t *testing.T) {
				q := new(dns.Msg).SetQuestion(tt.qname, tt.qtype)
				r := ask(t, s, network, q)
				var got []string
				for _, rr := range r.Answer {
					if rr.Header().Name != q.Question[0].Name {
						t.Errorf("owner %q", rr.Header().Name)
					}
					got = append(got, strings.TrimPrefix(rr.String(), rr.Header().String()))
				}
				if r.Rcode != tt.rcode || r.Authoritative != tt.auth || !slices.Equal(got, tt.want) {
					t.Errorf("got %s, authoritative %v, %q", dns.RcodeToString[r.Rcode], r.Authoritative, got)
				}
				if tt.soa != (len(r.Ns) == 1 && r.Ns[0].Header().Rrtype == dns.TypeSOA) {
					t.Errorf("authority: %v", r.Ns)
				}
				if r.RecursionAvailable {
					t.Error("claims to ask others")
				}
			})
		}
	}
}

func TestOddQueries(t *testing.T) {
	s := run(t)
	question := func(change func(*dns.Msg)) *dns.Msg {
		m := new(dns.Msg).SetQuestion("laptop.mesh.internal.", dns.TypeAAAA)
		change(m)
		return m
	}
	for _, tt := range []struct {
		name  string
		q     *dns.Msg
		rcode int
	}{
		{"other class", question(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"notify", question(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"update", question(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"no question", question(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		{"EDNS version 1", question(func(m *dns.Msg) {
			m.SetEdns0(4096, false)
			m.IsEdns0().SetVersion(1)
		}), dns.RcodeBadVers},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := ask(t, s, "udp", tt.q)
			if r.Rcode != tt.rcode || len(r.Answer) != 0 {
				t.Errorf("got %v", r)
			}
		})
	}
}

// TestTruncation holds the size of an answer over UDP, and that TCP has all of it.
func TestTruncation(t *testing.T) {
	s := run(t)
	var many []netip.Addr
	for i := range 100 {
		many = append(many, netip.MustParseAddr(fmt.Sprintf("fd12:3456:789a::%x", i+1)))
	}
	s.SetNames(map[string][]netip.Addr{"many": many})
	q := new(dns.Msg).SetQuestion("many.mesh.internal.", dns.TypeAAAA)
	if r := ask(t, s, "udp", q); !r.Truncated || sizeOf(r) > dns.MinMsgSize {
		t.Errorf("plain: truncated %v, %d bytes", r.Truncated, sizeOf(r))
	}
	big := q.Copy().SetEdns0(65535, false)
	c := &dns.Client{Net: "udp", UDPSize: 65535}
	r, _, err := c.Exchange(big, s.Addr().String())
	if err != nil || !r.Truncated || sizeOf(r) > maxUDPSize || sizeOf(r) <= dns.MinMsgSize || r.IsEdns0() == nil {
		t.Errorf("EDNS: %v, %d bytes", err, sizeOf(r))
	}
	if r := ask(t, s, "tcp", q); r.Truncated || len(r.Answer) != 100 {
		t.Errorf("TCP: truncated %v, %d answers", r.Truncated, len(r.Answer))
	}
}

// sizeOf is how many bytes a message had on the wire, with its names compressed.
func sizeOf(m *dns.Msg) int {
	m.Compress = true
	return m.Len()
}

func TestSetNamesReplaces(t *testing.T) {
	s := run(t)
	names := map[string][]netip.Addr{"new": {netip.MustParseAddr("fd00::1")}}
	s.SetNames(names)
	names["new"][0] = netip.MustParseAddr("fd00::2") // the server has its own copy
	delete(names, "new")
	q := func(name string) *dns.Msg { return ask(t, s, "udp", new(dns.Msg).SetQuestion(name, dns.TypeAAAA)) }
	if r := q("new.mesh.internal."); len(r.Answer) != 1 || r.Answer[0].(*dns.AAAA).AAAA.String() != "fd00::1" {
		t.Errorf("new: %v", r.Answer)
	}
	if r := q("laptop.mesh.internal."); r.Rcode != dns.RcodeNameError {
		t.Errorf("old: %v", r)
	}
}

// TestResponsesAreNotAnswered: two servers must not talk to each other for ever.
func TestResponsesAreNotAnswered(t *testing.T) {
	s := run(t)
	conn, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	response := new(dns.Msg).SetQuestion("laptop.mesh.internal.", dns.TypeAAAA)
	response.Response = true
	query := new(dns.Msg).SetQuestion("nas.mesh.internal.", dns.TypeAAAA)
	for _, m := range []*dns.Msg{response, query} {
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1500)
	n, err := conn.Read(buf)
	got := new(dns.Msg)
	if err != nil || got.Unpack(buf[:n]) != nil || got.Id != query.Id {
		t.Errorf("the first answer is %v, %v; want that of the query", got, err)
	}
}

func TestListen(t *testing.T) {
	for _, at := range []string{"0.0.0.0:0", "192.0.2.1:53", "[::]:0"} {
		if s, err := Listen(Config{Addr: netip.MustParseAddrPort(at)}); err == nil {
			s.Close()
			t.Errorf("listens at %s", at)
		}
	}
	taken := run(t).Addr()
	if s, err := Listen(Config{Addr: taken}); err == nil {
		s.Close()
		t.Error("two servers on one port")
	}
	// By default, a taken port is no reason to give up. Somebody may have it already.
	first, err := Listen(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := Listen(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if first.Addr() == second.Addr() || second.Addr().Port() == DefaultPort || !second.Addr().Addr().IsLoopback() {
		t.Errorf("at %v and %v", first.Addr(), second.Addr())
	}
	if s, err := Listen(Config{Addr: netip.MustParseAddrPort("[::1]:0")}); err != nil {
		t.Error(err)
	} else {
		s.Close()
	}
}

func TestHint(t *testing.T) {
	got := Hint(netip.MustParseAddrPort("127.0.0.1:5383"))
	if !strings.Contains(got, "server=/mesh.internal/127.0.0.1#5383") {
		t.Error(got)
	}
}

// TestReverseAddr holds reverseAddr to the names that miekg/dns makes.
func TestReverseAddr(t *testing.T) {
	for _, a := range []string{"fd12:3456:789a:bcde:f012:3456:789a:bcde", "::", "::1", "192.0.2.1", "255.255.255.255"} {
		name, err := dns.ReverseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := reverseAddr(name); !ok || got != netip.MustParseAddr(a) {
			t.Errorf("%s: got %v, %v", name, got, ok)
		}
	}
}

// FuzzAnswer asks anything: no panic, an answer that can be sent, and addresses of members only.
func FuzzAnswer(f *testing.F) {
	add := func(m *dns.Msg) {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(new(dns.Msg).SetQuestion("laptop.mesh.internal.", dns.TypeAAAA))
	add(new(dns.Msg).SetQuestion("mesh.internal.", dns.TypeANY).SetEdns0(1232, true))
	add(new(dns.Msg).SetQuestion("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.", dns.TypePTR))
	add(new(dns.Msg).SetQuestion("ip6.arpa.", dns.TypeSOA))
	add(new(dns.Msg).SetUpdate("mesh.internal."))
	z := newZone(1, sampleNames())
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		r := z.answer(q)
		if _, err := r.Pack(); err != nil {
			t.Errorf("cannot be sent: %v\n%v", err, r)
		}
		if !r.Response || r.Id != q.Id {
			t.Errorf("no answer to this query: %v", r)
		}
		for _, rr := range r.Answer {
			if a, ok := rr.(*dns.AAAA); ok {
				addr, _ := netip.AddrFromSlice(a.AAAA)
				if z.reverse[addr.Unmap()] == "" {
					t.Errorf("address of nobody: %v", a)
				}
			}
		}
	})
}

// FuzzReverseName: what is taken for a reverse name is the one name of that address.
func FuzzReverseName(f *testing.F) {
	f.Add("1.0.0.127.in-addr.arpa.")
	f.Add("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := reverseAddr(name)
		if !ok {
			return
		}
		if again, err := dns.ReverseAddr(a.String()); err != nil || again != name {
			// An IPv4 address in IPv6 clothes has no name that miekg/dns would make.
			if !a.Is4In6() {
				t.Errorf("%q is %v, whose name is %q (%v)", name, a, again, err)
			}
		}
	})
}
