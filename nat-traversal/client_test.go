package traversal

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// stunWorld plays network and servers for a Client, in a time of its own.
type stunWorld struct {
	t   *testing.T
	c   *Client
	now time.Time
	// answer says how a server sees us; not ok: it is silent.
	answer func(server netip.AddrPort) (mapped string, ok bool)
	sent   map[netip.AddrPort]int
}

func newStunWorld(t *testing.T, servers ...string) *stunWorld {
	id := uint64(0)
	w := &stunWorld{t: t, now: time.Unix(1e9, 0), sent: make(map[netip.AddrPort]int)}
	w.c = NewClient(func() (x TxID) {
		id++
		binary.BigEndian.PutUint64(x[:], id)
		return x
	})
	var list []netip.AddrPort
	for _, s := range servers {
		list = append(list, endpoint(s))
	}
	w.c.SetServers(w.now, list)
	return w
}

// run lets time pass from deadline to deadline.
func (w *stunWorld) run(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 10000 {
			w.t.Fatal("the client does not let time pass")
		}
		queries, next := w.c.Poll(w.now)
		for _, q := range queries {
			w.sent[q.To]++
			w.deliver(q)
		}
		if len(queries) > 0 {
			continue // an answer may have moved the deadline
		}
		if next.IsZero() || next.After(end) {
			w.now = end
			return
		}
		w.now = next
	}
}

func (w *stunWorld) deliver(q Query) {
	w.t.Helper()
	mapped, ok := w.answer(q.To)
	if !ok {
		return
	}
	b, ok := Answer(q.Data, endpoint(mapped))
	if !ok {
		w.t.Fatalf("the query to %v is not answered", q.To)
	}
	if !w.c.Handle(w.now, q.To, b) {
		w.t.Errorf("the answer of %v is not taken", q.To)
	}
}

func TestClientMapping(t *testing.T) {
	const a1, a2, b1, lan = "198.51.100.1:1", "198.51.100.1:2", "203.0.113.1:1", "192.168.1.9:1"
	const local, outside, other, third = "192.168.1.5:51830", "198.18.0.1:4000", "198.18.0.1:4001", "198.18.0.1:4002"
	for _, c := range []struct {
		name    string
		answers map[string]string
		local   string
		want    Mapping
		udp     bool
		reflex  []string
	}{
		{"nobody answers", map[string]string{a1: "", b1: ""}, local, MappingUnknown, false, nil},
		{"no NAT", map[string]string{a1: outside, b1: outside}, outside, MappingNone, true, nil},
		{"no NAT, one server", map[string]string{a1: outside}, outside, MappingNone, true, nil},
		{"one server", map[string]string{a1: outside}, local, MappingUnknown, true, []string{outside}},
		{"one server address", map[string]string{a1: outside, a2: outside}, local, MappingUnknown, true, []string{outside}},
		{"endpoint-independent", map[string]string{a1: outside, b1: outside}, local, MappingEndpointIndependent, true, []string{outside}},
		{"address-dependent", map[string]string{a1: outside, a2: outside, b1: other}, local, MappingAddressDependent, true, []string{outside, other}},
		{"port-dependent", map[string]string{a1: outside, a2: other, b1: third}, local, MappingAddressAndPortDependent, true, []string{outside, other, third}},
		{"port-dependent, one server address", map[string]string{a1: outside, a2: other}, local, MappingAddressAndPortDependent, true, []string{outside, other}},
		{"dependent, on what is not seen", map[string]string{a1: outside, b1: other}, local, MappingAddressAndPortDependent, true, []string{outside, other}},
		{"a neighbour does not see the NAT", map[string]string{a1: outside, b1: outside, lan: local}, local, MappingEndpointIndependent, true, []string{outside}},
		{"a server behind a router that hides sources", map[string]string{a1: outside, b1: outside, "203.0.113.2:1": "192.168.1.1:7"}, local, MappingEndpointIndependent, true, []string{outside, "192.168.1.1:7"}},
		{"neighbours only", map[string]string{lan: local}, local, MappingUnknown, true, nil},
		{"a server that lies with loopback", map[string]string{a1: outside, b1: "127.0.0.1:9"}, local, MappingUnknown, true, []string{outside}},
		{"servers that lie beside others", map[string]string{a1: outside, b1: outside, a2: "127.0.0.1:9", "203.0.113.2:1": "127.0.0.1:10"}, local, MappingEndpointIndependent, true, []string{outside}},
		{"nobody but one that lies", map[string]string{a1: "127.0.0.1:9"}, local, MappingUnknown, true, nil},
		{"IPv6", map[string]string{"[2001:db8::1]:1": "[2001:db8::9]:51830"}, "[2001:db8::9]:51830", MappingNone, true, nil},
		{"IPv4 tells the mapping", map[string]string{"[2001:db8::1]:1": "[2001:db8::9]:51830", a1: outside, b1: outside}, "[2001:db8::9]:51830", MappingEndpointIndependent, true, []string{outside}},
	} {
		t.Run(c.name, func(t *testing.T) {
			servers := make([]string, 0, len(c.answers))
			for s := range c.answers {
				servers = append(servers, s)
			}
			w := newStunWorld(t, servers...)
			w.c.SetLocal([]netip.AddrPort{endpoint(c.local)})
			w.answer = func(s netip.AddrPort) (string, bool) { m := c.answers[s.String()]; return m, m != "" }
			w.run(time.Second)
			got := w.c.Result(w.now)
			if got.Mapping != c.want || got.UDP != c.udp {
				t.Errorf("mapping %v, UDP %v", got.Mapping, got.UDP)
			}
			var reflex []netip.AddrPort
			for _, s := range c.reflex {
				reflex = append(reflex, endpoint(s))
			}
			if !slices.Equal(got.Reflexive, reflex) {
				t.Errorf("reflexive %v, want %v", got.Reflexive, reflex)
			}
		})
	}
}

// TestClientOrder: an address that one liar reports does not come first.
func TestClientOrder(t *testing.T) {
	w := newStunWorld(t, "198.51.100.1:1", "198.51.100.2:1", "198.51.100.3:1")
	w.answer = func(s netip.AddrPort) (string, bool) {
		if s.Addr() == addr("198.51.100.1") {
			return "11.0.0.1:53", true
		}
		return "198.18.0.1:4000", true
	}
	w.run(time.Second)
	want := []netip.AddrPort{endpoint("198.18.0.1:4000"), endpoint("11.0.0.1:53")}
	if got := w.c.Result(w.now).Reflexive; !slices.Equal(got, want) {
		t.Errorf("reflexive %v, want %v", got, want)
	}
}

// TestClientRepeats: a silent server gets five repetitions of one question in
// growing distance, and another question an interval later.
func TestClientRepeats(t *testing.T) {
	w := newStunWorld(t, "198.51.100.1:1")
	var at []time.Duration
	begin := w.now
	w.answer = func(netip.AddrPort) (string, bool) { at = append(at, w.now.Sub(begin)); return "", false }
	w.run(20 * time.Second)
	want := []time.Duration{0, 300, 900, 2100, 4500}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(at, want) {
		t.Errorf("asked at %v, want %v", at, want)
	}
	w.run(20 * time.Second)
	if len(at) <= len(want) {
		t.Error("a server that was silent is never asked again")
	}
}

// TestClientKeepsAsking: an answered server is asked every 25 s, and what it has
// said is forgotten when it falls silent.
func TestClientKeepsAsking(t *testing.T) {
	w := newStunWorld(t, "198.51.100.1:1", "203.0.113.1:1")
	outside, silent := "198.18.0.1:4000", false
	w.answer = func(netip.AddrPort) (string, bool) { return outside, !silent }
	w.run(10 * time.Minute)
	for s, n := range w.sent {
		if n < 20 || n > 26 {
			t.Errorf("%v was asked %d times in 10 min", s, n)
		}
	}
	outside = "198.18.0.1:5000" // the NAT was restarted
	w.run(askInterval)
	if got := w.c.Result(w.now).Reflexive; !slices.Equal(got, []netip.AddrPort{endpoint(outside)}) {
		t.Errorf("after a rebinding: %v", got)
	}
	silent = true
	w.run(answerLife + askInterval)
	if got := w.c.Result(w.now); got.UDP || got.Reflexive != nil || got.Mapping != MappingUnknown {
		t.Errorf("after silence: %+v", got)
	}
}

func TestClientRefresh(t *testing.T) {
	w := newStunWorld(t, "198.51.100.1:1", "203.0.113.1:1")
	w.answer = func(netip.AddrPort) (string, bool) { return "198.18.0.1:4000", true }
	w.run(time.Second)
	w.c.Refresh(w.now)
	if w.c.Result(w.now).UDP {
		t.Error("answers outlive a change of network")
	}
	w.run(0)
	if got := w.c.Result(w.now).Mapping; got != MappingEndpointIndependent {
		t.Errorf("mapping %v after asking again", got)
	}
}

// TestClientIgnores: THREATS.md, answers of others and to other questions.
func TestClientIgnores(t *testing.T) {
	w := newStunWorld(t, "198.51.100.1:1")
	server, outside := endpoint("198.51.100.1:1"), endpoint("198.18.0.1:4000")
	queries, _ := w.c.Poll(w.now)
	if len(queries) != 1 {
		t.Fatalf("%d queries", len(queries))
	}
	good, _ := Answer(queries[0].Data, outside)
	v6, _ := Answer(queries[0].Data, endpoint("[2001:db8::1]:1"))
	if w.c.Handle(w.now, endpoint("198.51.100.1:2"), good) || w.c.Handle(w.now, endpoint("203.0.113.1:1"), good) {
		t.Error("an answer of somebody else is taken")
	}
	if w.c.Handle(w.now, server, v6) {
		t.Error("an address of the other family is taken")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10000 {
		var id TxID
		binary.BigEndian.PutUint64(id[:], rng.Uint64())
		b, _ := Answer(Request(id), outside)
		if w.c.Handle(w.now, server, b) {
			t.Fatal("an answer with a guessed id is taken")
		}
	}
	if w.c.Result(w.now).UDP {
		t.Error("something was taken")
	}
	if !w.c.Handle(w.now, server, good) {
		t.Error("the answer is not taken")
	}
	if w.c.Handle(w.now, server, good) {
		t.Error("the answer is taken twice")
	}
}

func TestClientSetServers(t *testing.T) {
	w := newStunWorld(t, "198.51.100.1:1", "203.0.113.1:1")
	w.answer = func(netip.AddrPort) (string, bool) { return "198.18.0.1:4000", true }
	w.run(time.Second)
	w.c.SetServers(w.now, []netip.AddrPort{
		endpoint("203.0.113.1:1"), endpoint("[::ffff:203.0.113.1]:1"), endpoint("203.0.113.1:0"), {}, endpoint("203.0.113.2:1"),
	})
	w.run(time.Second)
	if got := w.c.Result(w.now).Mapping; got != MappingEndpointIndependent {
		t.Errorf("mapping %v: the answer of a server that stayed is lost", got)
	}
	if n := w.sent[endpoint("203.0.113.1:1")]; n != 1 {
		t.Errorf("a server that stayed was asked %d times", n)
	}
	var many []netip.AddrPort
	for i := range 100 {
		many = append(many, netip.AddrPortFrom(addr("203.0.113.3"), uint16(i+1)))
	}
	w.c.SetServers(w.now, many)
	if q, _ := w.c.Poll(w.now); len(q) != maxServers {
		t.Errorf("%d are asked at once, want %d", len(q), maxServers)
	}
	w.c.SetServers(w.now, nil)
	if q, next := w.c.Poll(w.now); len(q) != 0 || !next.IsZero() {
		t.Errorf("without servers: %d queries, next at %v", len(q), next)
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		Host.String(): "host", Reflexive.String(): "reflexive", Mapped.String(): "mapped", Advertised.String(): "advertised", Kind(9).String(): "kind(9)",
		MappingUnknown.String(): "unknown", MappingNone.String(): "none", MappingEndpointIndependent.String(): "endpoint-independent",
		MappingAddressDependent.String(): "address-dependent", MappingAddressAndPortDependent.String(): "address-and-port-dependent", Mapping(9).String(): "mapping(9)",
		Candidate{endpoint("198.18.0.1:9"), Reflexive}.String(): "reflexive:198.18.0.1:9",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
