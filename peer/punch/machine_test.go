package punch

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"meshd/nat-traversal"
)

func begin() time.Time { return time.Unix(1_800_000_000, 0) }

func numbers(seed uint64) func() uint32 {
	return rand.New(rand.NewPCG(seed, 1)).Uint32
}

// pair is two machines with a way between them on which messages take some time.
type pair struct {
	now   time.Time
	a, b  *side
	delay time.Duration
	lose  func(from *side, n int) bool // the n-th message of a side
}

type side struct {
	*Machine
	name   string
	wake   time.Time
	inbox  []letter
	sent   int
	probes []probed
	opens  int
	sprays int
	closes int
	ports  map[uint16]int
}

type letter struct {
	at time.Time
	b  []byte
}

type probed struct {
	at   time.Time
	addr netip.AddrPort
}

func newPair(a, b traversal.Mapping) *pair {
	p := &pair{now: begin(), delay: 20 * time.Millisecond, lose: func(*side, int) bool { return false }}
	for i, m := range []traversal.Mapping{a, b} {
		s := &side{Machine: New(Config{Rand: numbers(uint64(i))}), name: string(rune('a' + i)), ports: map[uint16]int{}}
		s.SetLocal(Local{Mapping: m, Candidates: []traversal.Candidate{
			cand(traversal.Host, fmt.Sprintf("192.168.1.%d:51830", i+1)), cand(traversal.Reflexive, fmt.Sprintf("198.18.0.%d:4096", i+1)),
		}}, p.now)
		if i == 0 {
			p.a = s
		} else {
			p.b = s
		}
	}
	return p
}

// run lets time pass.
func (p *pair) run(d time.Duration) {
	end := p.now.Add(d)
	for p.now.Before(end) {
		p.turn(p.a, p.b)
		p.turn(p.b, p.a)
		next := end
		for _, s := range []*side{p.a, p.b} {
			next = earlier(next, s.wake)
			if len(s.inbox) > 0 {
				next = earlier(next, s.inbox[0].at)
			}
		}
		p.now = later(next, p.now.Add(time.Millisecond))
	}
	p.now = end
}

func (p *pair) turn(s, to *side) {
	for len(s.inbox) > 0 && !s.inbox[0].at.After(p.now) {
		_ = s.Receive(s.inbox[0].b, 2*p.delay, p.now)
		s.inbox = s.inbox[1:]
	}
	out, wake := s.Tick(p.now)
	if !wake.IsZero() && wake.Before(p.now.Add(-time.Millisecond)) {
		panic("a machine that is never done")
	}
	s.wake = wake
	for _, b := range out.Send {
		s.sent++
		if !p.lose(s, s.sent) {
			to.inbox = append(to.inbox, letter{p.now.Add(p.delay), b})
		}
	}
	for _, a := range out.Probe {
		s.probes = append(s.probes, probed{p.now, a})
	}
	if out.Open.IsValid() {
		s.opens++
	}
	for _, a := range out.Spray {
		s.sprays++
		s.ports[a.Port()]++
	}
	if out.Close {
		s.closes++
	}
}

// TestTogether: both sides probe all of the other's candidates at the same moment.
func TestTogether(t *testing.T) {
	p := newPair(traversal.MappingEndpointIndependent, traversal.MappingEndpointIndependent)
	p.a.Seek(true, p.now)
	p.run(time.Second)
	if len(p.a.probes) != 2 || len(p.b.probes) != 2 {
		t.Fatalf("probes: %v and %v", p.a.probes, p.b.probes)
	}
	apart := p.a.probes[0].at.Sub(p.b.probes[0].at).Abs()
	if apart > 2*time.Millisecond {
		t.Errorf("the first probes are %v apart", apart)
	}
	if p.a.probes[1].addr != netip.MustParseAddrPort("198.18.0.2:4096") {
		t.Errorf("probed %v", p.a.probes)
	}
	if p.a.sent != 1 || p.b.sent != 1 {
		t.Errorf("%d and %d messages", p.a.sent, p.b.sent)
	}
}

// TestLoss: each message may be lost, and the round still comes about.
func TestLoss(t *testing.T) {
	for _, lost := range []struct {
		who string
		n   int
	}{{"a", 1}, {"b", 1}} {
		p := newPair(traversal.MappingEndpointIndependent, traversal.MappingEndpointIndependent)
		p.lose = func(s *side, n int) bool { return s.name == lost.who && n == lost.n }
		p.a.Seek(true, p.now)
		p.run(3 * time.Second)
		if len(p.a.probes) != 2 || len(p.b.probes) != 2 {
			t.Errorf("%s's message %d lost: probes %v and %v", lost.who, lost.n, p.a.probes, p.b.probes)
		}
	}
}

// TestCrossing: calls of both at once do no harm.
func TestCrossing(t *testing.T) {
	p := newPair(traversal.MappingEndpointIndependent, traversal.MappingEndpointIndependent)
	p.a.Seek(true, p.now)
	p.b.Seek(true, p.now)
	p.run(10 * time.Second)
	if len(p.a.probes) < 2 || len(p.b.probes) < 2 || len(p.a.probes) > 4 || len(p.b.probes) > 4 {
		t.Errorf("probes: %v and %v", p.a.probes, p.b.probes)
	}
}

// TestSeldom: a pair that finds nothing tries ever more seldom, an idle one never,
// and a change makes it try soon.
func TestSeldom(t *testing.T) {
	p := newPair(traversal.MappingEndpointIndependent, traversal.MappingEndpointIndependent)
	p.run(time.Hour / 10)
	if p.a.sent+p.b.sent > 0 {
		t.Fatal("an idle pair calls")
	}
	p.a.Seek(true, p.now)
	var counts []int
	for range 6 {
		before := p.a.sent
		p.run(10 * time.Minute)
		counts = append(counts, p.a.sent-before)
	}
	if counts[0] < 3 || counts[0] > 5 || counts[5] > 2 || counts[5] < 1 {
		t.Errorf("calls in each ten minutes: %v", counts)
	}
	before := p.a.sent
	for i := range 10 { // a flapping interface
		p.a.SetLocal(Local{Candidates: []traversal.Candidate{cand(traversal.Host, fmt.Sprintf("10.0.0.%d:1", i+1))}}, p.now)
		p.run(100 * time.Millisecond)
	}
	p.run(3 * time.Second)
	if got := p.a.sent - before; got < 1 || got > 3 {
		t.Errorf("%d calls for ten changes in a second", got)
	}
	p.a.Seek(false, p.now)
	before = p.a.sent
	p.run(20 * time.Minute)
	if p.a.sent != before {
		t.Error("calls after a direct path was found")
	}
}

// TestFlood: a remote that calls all the time has us probe now and then.
func TestFlood(t *testing.T) {
	m := New(Config{Rand: numbers(1)})
	now := begin()
	probes, sent := 0, 0
	for i := range 6000 {
		msg := Message{Step: Call, Number: uint32(i), Candidates: sample().Candidates}
		if err := m.Receive(msg.Append(nil), time.Hour, now); err != nil {
			t.Fatal(err)
		}
		out, _ := m.Tick(now)
		probes, sent = probes+len(out.Probe), sent+len(out.Send)
		now = now.Add(10 * time.Millisecond)
	}
	if most := 3 * (callBurst + 60/15); probes > most || sent > most/3 {
		t.Errorf("%d probes, %d answers in a minute", probes, sent)
	}
}

// TestStaleAnswer: answers to nothing change nothing.
func TestStaleAnswer(t *testing.T) {
	p := newPair(traversal.MappingEndpointIndependent, traversal.MappingEndpointIndependent)
	p.a.Seek(true, p.now)
	p.run(time.Second)
	before := len(p.a.probes)
	for n := range uint32(100) {
		_ = p.a.Receive(Message{Step: Answer, Number: p.a.number + n, Candidates: sample().Candidates}.Append(nil), 0, p.now)
	}
	p.run(time.Second)
	if len(p.a.probes) != before {
		t.Error("answers that nobody asked for have us probe")
	}
}

func TestManyRoles(t *testing.T) {
	const (
		unknown   = traversal.MappingUnknown
		none      = traversal.MappingNone
		cone      = traversal.MappingEndpointIndependent
		symmetric = traversal.MappingAddressAndPortDependent
	)
	for _, c := range []struct {
		a, b         traversal.Mapping
		opens, spray string
	}{
		{symmetric, cone, "a", "b"},
		{cone, symmetric, "b", "a"},
		{none, symmetric, "b", "a"},
		{symmetric, symmetric, "", ""},
		{cone, cone, "", ""},
		{symmetric, unknown, "", ""},
		{unknown, symmetric, "", ""},
	} {
		p := newPair(c.a, c.b)
		p.a.Seek(true, p.now)
		p.b.Seek(true, p.now)
		p.run(30 * time.Minute / 2)
		for _, s := range []*side{p.a, p.b} {
			opens, sprays := 0, 0
			if s.name == c.opens {
				opens = 2 // now, and once ten minutes later
			}
			if s.name == c.spray {
				sprays = 2 * Probes
			}
			if s.opens > opens || s.opens < opens/2 || s.closes != s.opens || s.sprays > sprays || s.sprays < sprays/2 {
				t.Errorf("%v against %v: %s opens %d times, closes %d times, probes %d ports", c.a, c.b, s.name, s.opens, s.closes, s.sprays)
			}
		}
	}
}

// TestManyInTime: the ports are opened when all have been probed, no port is probed
// twice in a try, the ports are closed again, and all ends with a direct path.
func TestManyInTime(t *testing.T) {
	p := newPair(traversal.MappingAddressAndPortDependent, traversal.MappingEndpointIndependent)
	p.a.Seek(true, p.now)
	p.b.Seek(true, p.now)
	for p.a.opens == 0 {
		p.run(time.Millisecond)
		if p.now.Sub(begin()) > 10*time.Second {
			t.Fatal("no port is opened")
		}
	}
	if p.b.sprays != Probes || len(p.b.ports) != Probes {
		t.Errorf("opened after %d probes of %d ports", p.b.sprays, len(p.b.ports))
	}
	if took := p.now.Sub(begin()); took > 7*time.Second {
		t.Errorf("opened after %v", took)
	}
	p.run(openFor - 100*time.Millisecond)
	if p.a.closes != 0 {
		t.Error("closed too soon")
	}
	p.run(time.Second)
	if p.a.closes != 1 || p.a.opens != 1 {
		t.Errorf("opened %d times, closed %d times", p.a.opens, p.a.closes)
	}

	p = newPair(traversal.MappingAddressAndPortDependent, traversal.MappingEndpointIndependent)
	p.a.Seek(true, p.now)
	p.b.Seek(true, p.now)
	p.run(4 * time.Second)
	p.a.Seek(false, p.now)
	p.b.Seek(false, p.now)
	before := p.b.sprays
	p.run(10 * time.Second)
	if before == 0 || p.b.sprays != before || p.a.opens != 0 {
		t.Errorf("after it succeeded: %d then %d probes, opened %d times", before, p.b.sprays, p.a.opens)
	}
}

// TestManySuccess measures the chance of success against a NAT that gives random
// ports, and against one that counts them up.
func TestManySuccess(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	const tries = 2000
	for _, c := range []struct {
		name     string
		port     func(last uint32) uint32
		atLeast  float64
		inProbes int
	}{
		{"random ports", func(uint32) uint32 { return firstPort + random.Uint32()%(65536-firstPort) }, 0.97, Probes},
		{"counted up", func(last uint32) uint32 { return last + 1 }, 0.9, guesses},
		{"counted up, others use it too", func(last uint32) uint32 { return last + 1 + random.Uint32()%3 }, 0.9, guesses},
	} {
		met, probes := 0, 0
		for range tries {
			last := 20000 + random.Uint32()%20000
			seen := []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, 1}), uint16(last))}
			open := map[uint16]bool{}
			for range Ports {
				last = c.port(last)
				open[uint16(last)] = true
			}
			for i, p := range portsToProbe(seen, random.Uint32) {
				if open[p] && i < c.inProbes {
					met, probes = met+1, probes+i+1
					break
				}
			}
		}
		rate := float64(met) / tries
		t.Logf("%s: %.3f succeed within %d probes, after %d on average", c.name, rate, c.inProbes, probes/max(met, 1))
		if rate < c.atLeast {
			t.Errorf("%s: %.3f", c.name, rate)
		}
	}
}

// TestManyNobodyElse: only an address outside a NAT is probed so.
func TestManyNobodyElse(t *testing.T) {
	for _, c := range []traversal.Candidate{
		cand(traversal.Host, "198.18.0.1:1"), cand(traversal.Advertised, "198.18.0.1:1"),
		cand(traversal.Reflexive, "192.168.1.1:1"), cand(traversal.Reflexive, "169.254.1.1:1"), cand(traversal.Reflexive, "[2001:db8::1]:1"),
	} {
		if got := outside([]traversal.Candidate{c}); len(got) > 0 {
			t.Errorf("%v: %v", c, got)
		}
	}
	got := outside([]traversal.Candidate{
		cand(traversal.Reflexive, "198.18.0.1:1"), cand(traversal.Reflexive, "203.0.113.1:1"), cand(traversal.Reflexive, "198.18.0.1:2"),
	})
	if len(got) != 2 || got[1].Port() != 2 {
		t.Errorf("one address at a time: %v", got)
	}
}

// TestManyBusy: who is at it with another comes back to it.
func TestManyBusy(t *testing.T) {
	for _, busy := range []string{"a", "b"} {
		p := newPair(traversal.MappingAddressAndPortDependent, traversal.MappingEndpointIndependent)
		p.a.Busy(busy == "a")
		p.b.Busy(busy == "b")
		p.a.Seek(true, p.now)
		p.b.Seek(true, p.now)
		p.run(10 * time.Second)
		if p.a.opens > 0 || p.b.sprays > 0 || p.a.Trying() || p.b.Trying() {
			t.Errorf("%s is busy: opened %d times, %d probes", busy, p.a.opens, p.b.sprays)
		}
		p.a.Busy(false)
		p.b.Busy(false)
		p.run(40 * time.Second)
		if p.a.opens != 1 || p.b.sprays != Probes {
			t.Errorf("%s was busy: opened %d times, %d probes", busy, p.a.opens, p.b.sprays)
		}
	}
}
