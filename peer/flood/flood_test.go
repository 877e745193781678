package flood

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"meshd/keys"
)

const size = 200

const text = "a broadcast of all"

// Each of 200 members gets a frame once, in three hops' time, and sends at most eight copies.
func TestTwoHundred(t *testing.T) {
	for seed := range uint64(10) {
		s := newSim(t, size, seed)
		origin := s.nodes[s.rng.IntN(size)]
		name := origin.broadcast(text)
		s.run(3 * time.Second)
		s.check(name, text, 3*hop)
		total, tells := 0, 0
		for _, n := range s.nodes {
			total += n.sent[name]
			tells += int(n.m.Stats().Told)
		}
		if total != size-1 {
			t.Errorf("%d copies for %d members", total, size-1)
		}
		if seed == 0 {
			t.Logf("messages that say who has it: %.1f a member; bytes of copies and messages %d a member", float64(tells)/size, s.octets/size)
		}
	}
}

// One member in ten dies while a frame spreads: every survivor has it within a second, once.
func TestDeaths(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and long under the race detector; the same without it runs too")
	}
	worst := time.Duration(0)
	for seed := range uint64(30) {
		s := newSim(t, size, seed)
		s.delay = func(a, b *simNode) time.Duration {
			return time.Duration(5+(a.index*31+b.index*31)%36) * time.Millisecond
		}
		origin := s.nodes[s.rng.IntN(size)]
		for _, n := range s.some(size/10, origin) {
			s.after(time.Duration(s.rng.Int64N(int64(3*hop))), func() { n.dead = true })
		}
		name := origin.broadcast(text)
		if seed%2 == 1 { // the origin dies as well, as soon as it has sent
			origin.dead = true
		}
		s.run(3 * time.Second)
		worst = max(worst, s.check(name, text, time.Second))
	}
	t.Logf("the last survivor has it after %v at worst", worst)
}

// What is for some of 200 members comes to each of those once, and nobody else has a part in
// it: also where one in ten of them dies meanwhile, and where a quarter of all do not know of
// one in five of them yet that it is for them.
func TestForSome(t *testing.T) {
	for _, tt := range []struct {
		audience      int
		deaths, views bool
		limit         time.Duration
	}{
		{9, false, false, 3 * hop},
		{40, false, false, 3 * hop},
		{190, false, false, 3 * hop},
		{9, true, false, time.Second},
		{40, true, false, time.Second},
		{190, true, false, time.Second},
		{9, false, true, time.Second},
		{40, false, true, time.Second},
		{190, false, true, time.Second},
	} {
		t.Run(fmt.Sprintf("for %d, deaths %v, different views %v", tt.audience, tt.deaths, tt.views), func(t *testing.T) {
			for seed := range uint64(3) {
				s := newSim(t, size, seed)
				origin := s.nodes[s.rng.IntN(size)]
				some := s.some(tt.audience, origin)
				recent := some[: tt.audience/5 : tt.audience/5]
				late := s.some(size/4, append(recent, origin)...)
				s.deaf = func(by, of *simNode) bool {
					return !slices.Contains(some, of) || tt.views && slices.Contains(recent, of) && slices.Contains(late, by)
				}
				if tt.deaths {
					for _, n := range some[:(tt.audience+9)/10] {
						s.after(time.Duration(s.rng.Int64N(int64(3*hop))), func() { n.dead = true })
					}
				}
				name := origin.broadcast(text)
				s.run(3 * time.Second)
				s.check(name, text, tt.limit)
			}
		})
	}
}

// Who is dead at the start and thought alive leaves a hole as well.
func TestDeadChildren(t *testing.T) {
	for seed := range uint64(5) {
		s := newSim(t, size, seed)
		origin := s.nodes[0]
		for _, send := range origin.m.divide(Name{origin.id, 1, 1}, everywhere, origin.id, nil) {
			if s.rng.IntN(2) == 0 {
				s.byID[send.To.Node()].dead = true
			}
		}
		name := origin.broadcast(text)
		s.run(3 * time.Second)
		s.check(name, text, time.Second)
	}
}

// A member that alters, invents or swallows what it should pass on is caught, or gone around.
func TestHostileForwarders(t *testing.T) {
	for _, tt := range []struct {
		name   string
		abuse  func(from, to *simNode, body []byte) []byte
		caught bool
	}{
		{"alters the frame", func(_, _ *simNode, b []byte) []byte { b[HeaderLen+3] ^= 1; return b }, true},
		{"alters the signature", func(_, _ *simNode, b []byte) []byte { b[signatureAt] ^= 1; return b }, true},
		{"alters the number", func(_, _ *simNode, b []byte) []byte { b[27]++; return b }, true},
		{"alters the epoch", func(_, _ *simNode, b []byte) []byte { b[19]++; return b }, true},
		{"names another origin", func(_, to *simNode, b []byte) []byte { copy(b, to.sim.nodes[7].id[:]); return b }, true},
		{"lengthens the frame", func(_, _ *simNode, b []byte) []byte { return append(b, 0) }, true},
		{"passes nothing on", func(_, _ *simNode, _ []byte) []byte { return nil }, false},
		{"leaves the part out", func(_, _ *simNode, b []byte) []byte { SetPart(b, nowhere); return b }, false},
		{"widens the part", func(_, _ *simNode, b []byte) []byte { SetPart(b, everywhere); return b }, false},
		{"sends to others than it should", func(_, _ *simNode, b []byte) []byte { SetPart(b, Part{5, 6}); return b }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(2) {
				s := newSim(t, size, seed)
				origin := s.nodes[100]
				var bad []*simNode
				for i, send := range origin.m.divide(Name{origin.id, 1, 1}, everywhere, origin.id, nil) {
					if i%3 == 0 { // children of the origin itself: there is no worse place
						n := s.byID[send.To.Node()]
						n.abuse, bad = tt.abuse, append(bad, n)
					}
				}
				name := origin.broadcast(text)
				s.run(3 * time.Second)
				s.check(name, text, time.Second)
				forged := uint64(0)
				for _, n := range s.nodes {
					forged += n.m.Stats().Verdicts[Forged]
					if len(n.got) > 1 {
						t.Errorf("%d got %d frames of one", n.index, len(n.got))
					}
				}
				if (forged > 0) != tt.caught {
					t.Errorf("%d forged copies were counted", forged)
				}
				for _, b := range bad {
					if tt.caught && !anyCaught(s, b) {
						t.Errorf("nobody has caught %d", b.index)
					}
				}
			}
		})
	}
}

func anyCaught(s *sim, b *simNode) bool {
	for _, n := range s.nodes {
		if x := n.m.nodes[b.id]; x != nil && x.caught {
			return true
		}
	}
	return false
}

// Everything ever said, said again by a member, is delivered to nobody.
func TestReplays(t *testing.T) {
	s := newSim(t, 40, 1)
	origin := s.nodes[3]
	var said [][]byte
	bad := s.byID[origin.m.divide(Name{origin.id, 1, 1}, everywhere, origin.id, nil)[0].To.Node()] // who passes some on
	bad.abuse = func(_, _ *simNode, b []byte) []byte { said = append(said, bytes.Clone(b)); return b }
	var names []Name
	for i := range 50 {
		names = append(names, origin.broadcast(fmt.Sprintf("frame number %d.", i)))
		s.run(100 * time.Millisecond)
	}
	bad.abuse = nil
	replay := func() {
		for _, b := range said {
			for _, to := range s.nodes {
				if to != bad {
					to.receive(bad, b)
				}
			}
		}
		s.run(3 * time.Second)
	}
	if len(said) == 0 {
		t.Fatal("nothing was recorded")
	}
	replay()
	for _, n := range s.nodes {
		n.m.Started(origin.id, 2) // the origin has started anew, as its record says
	}
	replay()
	for i, name := range names {
		for _, n := range s.nodes {
			if n != origin && (len(n.got[name]) != 1 || n.texts[name] != fmt.Sprintf("frame number %d.", i)) {
				t.Fatalf("%d got frame %d %d times", n.index, i, len(n.got[name]))
			}
		}
	}
	if st := s.nodes[0].m.Stats(); st.Verdicts[Stale] == 0 || st.Verdicts[Duplicate] == 0 {
		t.Errorf("%+v", st)
	}
}

// Members do not all know the same ones: who and the origin know each other is reached.
func TestViewsDiffer(t *testing.T) {
	for seed := range uint64(10) {
		s := newSim(t, size, seed)
		origin := s.nodes[50]
		knows := map[[2]int]bool{}
		for _, young := range s.some(20, origin) { // they have just joined, and a third has not heard of them
			for _, n := range s.nodes {
				if n != young && s.rng.IntN(3) == 0 {
					n.m.Leave(young.id)
					knows[[2]int{n.index, young.index}] = true
				}
			}
		}
		for _, gone := range s.some(10, origin) { // they have left, and half does not know
			for _, n := range s.nodes {
				if s.rng.IntN(2) == 0 {
					n.m.Leave(gone.id)
				}
			}
			gone.dead = true
		}
		for _, n := range s.some(20, origin) { // and some do not know the origin
			n.m.Leave(origin.id)
		}
		name := origin.broadcast(text)
		s.run(3 * time.Second)
		reached := 0
		for _, n := range s.nodes {
			if n.sent[name] > Fanout {
				t.Errorf("%d sent %d copies", n.index, n.sent[name])
			}
			mutual := n != origin && !n.dead && origin.m.nodes[n.id] != nil && n.m.nodes[origin.id] != nil
			if got := n.got[name]; mutual && (len(got) != 1 || got[0] > time.Second) {
				t.Errorf("seed %d: %d got it at %v", seed, n.index, got)
			} else if mutual {
				reached++
			}
		}
		if reached < 140 {
			t.Errorf("%d members count", reached)
		}
	}
}

// An origin that sends too much is cut at each receiver, whoever passes it on; others are not.
func TestStormOfOneOrigin(t *testing.T) {
	s := newSim(t, 40, 1)
	loud, quiet := s.nodes[0], s.nodes[1]
	for range 2000 {
		loud.broadcast(text)
	}
	name := quiet.broadcast(text)
	s.run(5 * time.Second)
	s.check(name, text, 3*hop)
	for _, n := range s.nodes {
		heard := 0
		for got := range n.got {
			if got.Origin == loud.id {
				heard++
			}
		}
		if most := 600 + 300*4; n != loud && (heard < 600 || heard > most) {
			t.Errorf("%d got %d frames of a storm", n.index, heard)
		}
	}
	total := 0
	for _, n := range s.nodes {
		total += int(n.m.Stats().Verdicts[Storm])
	}
	if total == 0 {
		t.Error("no copy of the storm was counted")
	}
}

// Memory is bounded, whatever members say and send, and is given back.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and long under the race detector; the same without it runs too")
	}
	s := newSim(t, 40, 1)
	n := s.nodes[0]
	for round := range 5 {
		for _, from := range s.nodes[1:] {
			var names []Name
			for i := range 1000 {
				names = append(names, Name{s.nodes[(i+5)%40].id, 1, uint64(round*1000 + i + 1)})
			}
			n.m.Hear(from.id, Message{Have, names}, s.now)
			for range 30 {
				name := from.m.Next()
				c := Copy{Name: name, Part: nowhere, Frame: make([]byte, 9000)}
				c.Signature = sign(&c)
				n.receive(from, c.Append(nil))
			}
		}
		if n.m.bytes > maxHeld || len(n.m.missing) > maxAllMissed || len(n.m.missing) > maxMissing*39 {
			t.Fatalf("%d bytes held, %d missing", n.m.bytes, len(n.m.missing))
		}
		for _, x := range n.m.nodes {
			if x.bytes > maxHeldOf {
				t.Fatalf("%d bytes held of one", x.bytes)
			}
		}
	}
	if len(n.m.missing) == 0 || n.m.bytes == 0 {
		t.Fatal("nothing was held")
	}
	s.run(5 * time.Second)
	if n.m.bytes != 0 || len(n.m.holding) != 0 || len(n.m.order) != 0 || len(n.m.missing) != 0 {
		t.Errorf("%d bytes, %d frames, %d in order, %d missing are left", n.m.bytes, len(n.m.holding), len(n.m.order), len(n.m.missing))
	}
	for _, x := range n.m.nodes {
		if x.missing != 0 || x.bytes != 0 || len(x.held) != 0 {
			t.Errorf("%d missing, %d bytes are charged to one", x.missing, x.bytes)
		}
	}
}

// Who brings forged copies has few of them checked.
func TestForgersCostLittle(t *testing.T) {
	s := newSim(t, 20, 1)
	n, bad, honest := s.nodes[0], s.nodes[1], s.nodes[2]
	checked := 0
	for i := range 10000 {
		c := Copy{Name: Name{honest.id, 1, uint64(i + 1)}, Frame: []byte(text)}
		if n.m.Judge(bad.id, &c, s.now) == Verify {
			checked++
			n.m.Reject(bad.id, s.now)
		}
	}
	if checked != forgedTerms.burst {
		t.Errorf("%d signatures were checked", checked)
	}
	name := honest.broadcast(text)
	s.run(3 * time.Second)
	s.check(name, text, time.Second)
}

// Whoever divides, no place is in two parts, none is left out, and the tree has bounded depth.
func TestDivide(t *testing.T) {
	for _, members := range []int{1, 2, 3, 8, 9, 10, 11, 17, 57, 58, 100, 199, 200, 201, 400} {
		s := newSim(t, members, uint64(members))
		origin := s.nodes[s.rng.IntN(members)]
		name := Name{origin.id, 1, uint64(members)}
		had := map[keys.NodeID]int{}
		depth := 0
		var spread func(n *simNode, p Part, from *simNode, at int)
		spread = func(n *simNode, p Part, from *simNode, at int) {
			depth = max(depth, at)
			sends := n.m.divide(name, p, from.id, nil)
			if len(sends) > Fanout {
				t.Fatalf("%d copies", len(sends))
			}
			for i, s1 := range sends {
				to := s.byID[s1.To.Node()]
				if place(to.id) < s1.First || place(to.id) > s1.Last || s1.First < p.First || s1.Last > p.Last {
					t.Fatalf("part %x of %x for %x", s1.Part, p, to.id)
				}
				for _, s2 := range sends[:i] {
					if s1.First <= s2.Last && s2.First <= s1.Last {
						t.Fatalf("parts %x and %x", s1.Part, s2.Part)
					}
				}
				had[to.id]++
				spread(to, s1.Part, n, at+1)
			}
		}
		spread(origin, everywhere, origin, 0)
		if len(had) != members-1 || had[origin.id] != 0 {
			t.Fatalf("%d of %d are reached", len(had), members-1)
		}
		for id, n := range had {
			if n != 1 {
				t.Fatalf("%x gets %d copies", id, n)
			}
		}
		want, room := 0, 1
		for ; room < members; room *= 7 {
			want++
		}
		if depth > want {
			t.Errorf("%d members are %d steps deep", members, depth)
		}
	}
}

// away says that a member is thought not to be there.
type away struct{ seen }

func (away) Away() bool { return true }

// Who is thought away gets no copy from those without a session with it, and passes none on;
// if it is there, it has the frame all the same.
func TestAway(t *testing.T) {
	for seed := range uint64(5) {
		s := newSim(t, size, seed)
		origin := s.nodes[0]
		hinted := s.some(60, origin)
		for _, n := range s.nodes {
			for _, h := range hinted {
				if n != h {
					n.m.Join(away{seen{n, h}})
				}
			}
		}
		for _, h := range hinted[:50] {
			h.dead = true
		}
		name := origin.broadcast(text)
		s.run(3 * time.Second)
		s.check(name, text, time.Second)
		copies := 0
		for _, n := range s.nodes {
			copies += n.sent[name]
		}
		if copies > size-1-30 {
			t.Errorf("%d copies for %d members that are there", copies, size-51)
		}
	}
}

// An origin that gives everybody everything to pass on has a limit at each.
func TestWideParts(t *testing.T) {
	s := newSim(t, 40, 1)
	n, bad := s.nodes[0], s.nodes[1]
	sent := 0
	const seconds = 10
	for i := range seconds * 300 {
		c := Copy{Name: Name{bad.id, 1, uint64(i + 1)}, Part: everywhere, Frame: make([]byte, 60)}
		sends, v := n.m.Accept(bad.id, &c, c.Append(nil), s.now)
		if v != Fresh {
			t.Fatalf("frame %d: %v", i, v)
		}
		sent += len(sends)
		s.now = s.now.Add(time.Second / 300)
	}
	if most := passTerms.burst + seconds*600; sent > most || sent < most-Fanout {
		t.Errorf("%d copies were passed on, want at most %d", sent, most)
	}
}

// Who says that frames are there which are nowhere is asked twice and no more.
func TestEmptyPromises(t *testing.T) {
	s := newSim(t, 20, 1)
	n, liar := s.nodes[0], s.nodes[1]
	n.m.Hear(liar.id, Message{Have, []Name{{s.nodes[2].id, 1, 77}}}, s.now)
	asked := 0
	for range 50 {
		tells, _ := n.m.Tick(s.now)
		asked += len(tells)
		s.now = s.now.Add(50 * time.Millisecond)
	}
	if asked != 2 || n.m.Stats().Missed != 1 || len(n.m.missing) != 0 {
		t.Errorf("asked %d times, %+v", asked, n.m.Stats())
	}
}

// as is a member that is reached in some way.
type as struct {
	seen
	reach Reach
	away  bool
}

func (a as) Reach() Reach    { return a.reach }
func (a as) Neighbour() bool { return false }
func (a as) Away() bool      { return a.away }

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members []as
		caught  int // which has brought a forged copy; 0: none, else from 1
		want    []int
	}{
		{"direct before relayed", []as{{reach: Relayed}, {reach: Direct}, {reach: NoSession}, {reach: Direct}}, 0, []int{1, 3}},
		{"relayed before none", []as{{reach: NoSession}, {reach: Relayed}, {reach: NoSession}}, 0, []int{1}},
		{"not who is away", []as{{reach: Direct, away: true}, {reach: Relayed}}, 0, []int{1}},
		{"not who forges", []as{{reach: Direct}, {reach: Direct}}, 1, []int{1}},
		{"none before who is away", []as{{away: true}, {}, {away: true}}, 0, []int{1}},
		{"one who is away if there is no other", []as{{reach: Direct, away: true}}, 0, []int{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, len(tt.members)+1, 1)
			m := s.nodes[len(tt.members)].m
			var some ring
			for i, a := range tt.members {
				a.seen = seen{s.nodes[len(tt.members)], s.nodes[i]}
				m.Join(a)
				n := m.nodes[s.nodes[i].id]
				n.caught = tt.caught == i+1
				some = append(some, n)
			}
			chosen := map[int]bool{}
			for number := range uint64(10 * turn) {
				chosen[s.byID[m.choose(some, Name{s.nodes[0].id, 1, number + 1}).id].index] = true
			}
			if len(chosen) != len(tt.want) {
				t.Errorf("chosen %v, want %v", chosen, tt.want)
			}
			for _, i := range tt.want {
				if !chosen[i] {
					t.Errorf("chosen %v, want %v", chosen, tt.want)
				}
			}
		})
	}
}
