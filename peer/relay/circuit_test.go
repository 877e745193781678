package relay

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"meshd/keys"
)

// mesh is members with a desk and a book each, whose messages take 10 ms.
type mesh struct {
	t       *testing.T
	now     time.Time
	rng     *rand.Rand
	loss    float64
	members map[keys.NodeID]*member
	links   map[[2]keys.NodeID]Link
	flight  []flight
}

type member struct {
	desk *Desk
	book *Book
}

type flight struct {
	at       time.Time
	from, to keys.NodeID
	body     []byte
}

func newMesh(t *testing.T, n int) *mesh {
	m := &mesh{
		t: t, now: time.Unix(1_800_000_000, 0), rng: rand.New(rand.NewPCG(1, 1)),
		members: map[keys.NodeID]*member{}, links: map[[2]keys.NodeID]Link{},
	}
	for i := range n {
		self := id(byte(i + 1))
		cfg := Config{Self: self, Rand: source{m.rng}, Link: func(to keys.NodeID) Link { return m.links[[2]keys.NodeID{self, to}] }}
		m.members[self] = &member{NewDesk(cfg), NewBook(cfg)}
	}
	return m
}

// source is random bytes that are the same in every run.
type source struct{ *rand.Rand }

func (s source) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.Uint32())
	}
	return len(b), nil
}

// link gives two members a session, the relays on the way as the first sees them.
func (m *mesh) link(a, b byte, chain ...byte) {
	m.links[[2]keys.NodeID{id(a), id(b)}] = Link{Up: true, RTT: 20 * time.Millisecond, Chain: ids(chain...)}
	slices.Reverse(chain)
	m.links[[2]keys.NodeID{id(b), id(a)}] = Link{Up: true, RTT: 20 * time.Millisecond, Chain: ids(chain...)}
}

func (m *mesh) at(n byte) *member { return m.members[id(n)] }

// run lets time pass.
func (m *mesh) run(d time.Duration) {
	for end := m.now.Add(d); m.now.Before(end); m.now = m.now.Add(10 * time.Millisecond) {
		arrived := m.flight
		m.flight = nil
		for _, f := range arrived {
			if f.at.After(m.now) {
				m.flight = append(m.flight, f)
				continue
			}
			to := m.members[f.to]
			desk := to.desk.Receive(f.from, f.body, m.now)
			book := to.book.Receive(f.from, f.body, m.now)
			if !desk && !book {
				m.t.Errorf("%x was not understood", f.body)
			}
		}
		for self, x := range m.members {
			x.desk.Tick(m.now)
			x.book.Tick(m.now)
			for _, out := range [][]Message{first(x.desk.Take()), first(x.book.Take())} {
				for _, msg := range out {
					if m.rng.Float64() >= m.loss {
						m.flight = append(m.flight, flight{m.now.Add(10 * time.Millisecond), self, msg.To, msg.Body})
					}
				}
			}
		}
	}
}

func first(out []Message, _ bool) []Message { return out }

// TestCircuit follows a circuit from the asking to its end.
func TestCircuit(t *testing.T) {
	m := newMesh(t, 3)
	m.link(1, 3)
	m.link(2, 3)
	if !m.at(1).book.Ask(id(3), id(2), m.now) || m.at(1).book.Ask(id(3), id(2), m.now) {
		t.Fatal("asked never, or twice")
	}
	m.run(50 * time.Millisecond)
	a, b, r := m.at(1).book.Ways(), m.at(2).book.Ways(), m.at(3).desk.Circuits()
	if len(a) != 1 || len(b) != 1 || len(r) != 1 {
		t.Fatalf("%v, %v, %v", a, b, r)
	}
	if a[0].Relay != id(3) || a[0].Other != id(2) || !a[0].Asked || a[0].ID != r[0].AskerID || a[0].RTT != 20*time.Millisecond {
		t.Errorf("the asker's: %+v", a[0])
	}
	if b[0].Relay != id(3) || b[0].Other != id(1) || b[0].Asked || b[0].ID != r[0].OtherID {
		t.Errorf("the other's: %+v", b[0])
	}
	// It stays for as long as it is needed, also where messages are lost.
	m.loss = 0.3
	for range 60 {
		m.at(1).book.Need(id(2), m.now)
		m.run(10 * time.Second)
	}
	if got := m.at(1).book.Ways(); len(got) != 1 || got[0].Key != a[0].Key {
		t.Errorf("after ten minutes: %+v", got)
	}
	m.loss = 0
	m.run(2*refreshEvery + time.Second)
	if len(m.at(1).book.Ways())+len(m.at(2).book.Ways())+len(m.at(3).desk.Circuits()) != 0 {
		t.Error("it is there although nobody needs it")
	}
}

// TestEnds: however a circuit ends, all three know soon.
func TestEnds(t *testing.T) {
	for name, end := range map[string]func(m *mesh){
		"asker avoids it":     func(m *mesh) { m.at(1).book.Avoid(m.at(1).book.Ways()[0].Key, true, m.now) },
		"other avoids it":     func(m *mesh) { m.at(2).book.Avoid(m.at(2).book.Ways()[0].Key, false, m.now) },
		"relay is told off":   func(m *mesh) { m.at(3).desk.SetOffer(Offer{}) },
		"the volume is spent": func(m *mesh) { m.at(3).desk.SetOffer(Offer{On: true, Spent: true}) },
		"asker is revoked":    func(m *mesh) { m.at(3).desk.Forget(id(1)); m.at(2).book.Forget(id(1)); m.at(1).book.Forget(id(2)) },
		"other is revoked":    func(m *mesh) { m.at(3).desk.Forget(id(2)); m.at(2).book.Forget(id(1)) },
		"other moves too far": func(m *mesh) { m.link(2, 3, 7, 8, 9); m.at(3).desk.Recheck() },
	} {
		m := newMesh(t, 3)
		m.link(1, 3)
		m.link(2, 3)
		m.at(1).book.Ask(id(3), id(2), m.now)
		m.run(50 * time.Millisecond)
		end(m)
		m.run(50 * time.Millisecond)
		if n := len(m.at(1).book.Ways()) + len(m.at(2).book.Ways()) + len(m.at(3).desk.Circuits()); n != 0 {
			t.Errorf("%s: %d are left", name, n)
		}
	}
}

// TestBothAsk: two who ask for each other at once end up with one circuit.
func TestBothAsk(t *testing.T) {
	m := newMesh(t, 3)
	m.link(1, 3)
	m.link(2, 3)
	m.at(1).book.Ask(id(3), id(2), m.now)
	m.at(2).book.Ask(id(3), id(1), m.now)
	m.run(time.Second)
	a, b, r := m.at(1).book.Ways(), m.at(2).book.Ways(), m.at(3).desk.Circuits()
	if len(a) != 1 || len(b) != 1 || len(r) != 1 || a[0].ID != r[0].AskerID || b[0].ID != r[0].OtherID {
		t.Errorf("%+v, %+v, %+v", a, b, r)
	}
}

// TestRefusals: what a desk does not do, and that it is not asked again at once.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(m *mesh)
	}{
		"off":             {func(m *mesh) { m.at(3).desk.SetOffer(Offer{}) }},
		"no session":      {func(m *mesh) { delete(m.links, [2]keys.NodeID{id(3), id(2)}) }},
		"too far":         {func(m *mesh) { m.link(3, 2, 4, 5, 6) }},
		"through itself":  {func(m *mesh) { m.link(3, 2, 4, 3) }},
		"through an end":  {func(m *mesh) { m.link(3, 2, 1) }},
		"one relay twice": {func(m *mesh) { m.link(3, 2, 4); m.link(3, 1, 4) }},
	} {
		m := newMesh(t, 6)
		m.link(1, 3)
		m.link(2, 3)
		c.prepare(m)
		m.at(1).book.Ask(id(3), id(2), m.now)
		m.run(100 * time.Millisecond)
		if n := len(m.at(1).book.Ways()) + len(m.at(2).book.Ways()) + len(m.at(3).desk.Circuits()); n != 0 {
			t.Errorf("%s: %d circuits", name, n)
		}
		if m.at(1).book.Ask(id(3), id(2), m.now) {
			t.Errorf("%s: asked again at once", name)
		}
		m.run(forgiveAfter)
		if !m.at(1).book.Ask(id(3), id(2), m.now) {
			t.Errorf("%s: never asked again", name)
		}
	}
}

// TestThreeRelays: a chain of three carries, and no longer one.
func TestThreeRelays(t *testing.T) {
	m := newMesh(t, 6)
	m.link(1, 3)
	m.link(3, 2, 4, 5)
	m.at(1).book.Ask(id(3), id(2), m.now)
	m.run(time.Second)
	a, b := m.at(1).book.Ways(), m.at(2).book.Ways()
	if len(a) != 1 || !slices.Equal(a[0].Beyond, ids(4, 5)) || len(b) != 1 || len(b[0].Beyond) != 0 {
		t.Errorf("%+v, %+v", a, b)
	}
}

// TestDeskIsBounded: what one member asks for does not crowd out others.
func TestDeskIsBounded(t *testing.T) {
	m := newMesh(t, 3)
	desk := m.at(3).desk
	for n := byte(1); n < 250; n++ {
		m.links[[2]keys.NodeID{id(3), id(n)}] = Link{Up: true}
	}
	ask := func(from, to byte) {
		msg := message{kind: kindOpen, ticket: Ticket{from, to, byte(m.rng.Uint32())}, other: id(to)}
		desk.Receive(id(from), msg.append(nil), m.now)
	}
	for n := byte(10); n < 250; n++ {
		ask(1, n)
	}
	if n := len(desk.Circuits()); n != openBurst {
		t.Errorf("%d circuits at once", n)
	}
	for range 100 {
		for n := byte(10); n < 250; n++ {
			ask(1, n)
		}
		m.now = m.now.Add(time.Second)
	}
	if n := len(desk.Circuits()); n != maxPerMember {
		t.Errorf("%d circuits of one member", n)
	}
	ask(2, 10)
	if n := len(desk.Circuits()); n != maxPerMember+1 {
		t.Errorf("%d circuits with another's", n)
	}
	for from := byte(11); from < 250; from++ {
		for to := byte(10); to < 250; to++ {
			ask(from, to)
		}
	}
	if n := len(desk.Circuits()); n != maxCircuits {
		t.Errorf("%d circuits in all", n)
	}
	m.now = m.now.Add(Lifetime + time.Minute)
	desk.Tick(m.now)
	if len(desk.Circuits()) != 0 || len(desk.ids) != 0 || len(desk.askers) != 0 {
		t.Errorf("left: %d circuits, %d ids, %d askers", len(desk.Circuits()), len(desk.ids), len(desk.askers))
	}
}

// TestBookIsBounded: relays that offer what nobody asked for are turned away.
func TestBookIsBounded(t *testing.T) {
	m := newMesh(t, 3)
	book := m.at(2).book
	offer := func(relay, asker byte, ticket uint16) {
		msg := message{kind: kindOffer, ticket: Ticket{byte(ticket), byte(ticket >> 8)}, other: id(asker), lifetime: time.Hour}
		book.Receive(id(relay), msg.append(nil), m.now)
	}
	for n := range uint16(1000) {
		offer(3, 1, n)
	}
	if n := len(book.Ways()); n != maxOfferedBy {
		t.Errorf("%d circuits to one member", n)
	}
	for n := range uint16(5000) {
		offer(3, byte(10+n%200), n)
	}
	if n := len(book.Ways()); n != maxOffered {
		t.Errorf("%d circuits in all", n)
	}
	before := len(book.Ways())
	offer(3, 2, 1) // from itself
	offer(3, 3, 1) // from the relay
	if len(book.Ways()) != before {
		t.Error("an impossible offer was taken")
	}
	m.now = m.now.Add(Lifetime) // whatever lifetime they name
	book.Tick(m.now)
	if n := len(book.Ways()); n != 0 {
		t.Errorf("%d are left", n)
	}
}

func TestRank(t *testing.T) {
	list := []Candidate{
		{ID: id(1), RTT: 1 * time.Millisecond, Far: true, Contact: true},
		{ID: id(2), RTT: 1 * time.Millisecond},
		{ID: id(3), RTT: 50 * time.Millisecond, Contact: true},
		{ID: id(4), RTT: 20 * time.Millisecond, Contact: true, Rate: 10_000},
		{ID: id(5), RTT: 20 * time.Millisecond, Contact: true, Rate: 10_000_000},
		{ID: id(6), RTT: 2 * time.Millisecond, Public: true},
	}
	Rank(list)
	var got []byte
	for _, c := range list {
		got = append(got, c.ID[0])
	}
	if want := []byte{5, 3, 4, 6, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestSlower: a limit counts the more the lower it is, whatever a relay states.
func TestSlower(t *testing.T) {
	last := time.Duration(1<<63 - 1)
	for _, rate := range []uint64{1, rateUnit, 64 << 10, slowRate - 1, slowRate, 1 << 20, 10 << 20, 1 << 30, maxRate, 1 << 63, 0} {
		got := Slower(rate)
		if got < 0 || got > last {
			t.Errorf("%d bytes/s add %v, less than that %v", rate, got, last)
		}
		last = got
	}
	if last != 0 {
		t.Errorf("no limit adds %v", last)
	}
}

// TestTerms: both ends learn what a relay gives them, again whenever they ask, and remember it
// when the circuit is no more: for a while, while the relay is a member, and not of any number.
func TestTerms(t *testing.T) {
	const rate = 800 * rateUnit
	m := newMesh(t, 4)
	m.link(1, 3)
	m.link(2, 3)
	a, b, desk := m.at(1).book, m.at(2).book, m.at(3).desk
	desk.SetOffer(Offer{On: true, Rate: rate})
	a.Ask(id(3), id(2), m.now)
	m.run(100 * time.Millisecond)
	for name, book := range map[string]*Book{"asker": a, "other": b} {
		ways, again := book.Restated(), book.Restated()
		if len(ways) != 1 || ways[0].Rate != rate || ways[0].RTT != 20*time.Millisecond || len(again) != 0 {
			t.Errorf("%s: %+v, then %+v", name, ways, again)
		}
	}
	desk.SetOffer(Offer{On: true})
	for range 5 {
		a.Need(id(2), m.now)
		m.run(10 * time.Second)
	}
	if x, y := a.Restated(), b.Restated(); len(x) != 1 || x[0].Rate != 0 || len(y) != 1 || y[0].Rate != 0 {
		t.Errorf("without a limit: %+v, %+v", x, y)
	}
	desk.cfg.Share = func(Circuit) (uint64, bool) { return 2 * rate, true } // of the one that is carried
	for range 5 {
		a.Need(id(2), m.now)
		m.run(10 * time.Second)
	}
	if x, y := a.Restated(), b.Restated(); len(x) != 1 || x[0].Rate != 2*rate || len(y) != 1 || y[0].Rate != 2*rate {
		t.Errorf("its share: %+v, %+v", x, y)
	}
	a.Avoid(a.Ways()[0].Key, false, m.now)
	m.run(time.Second)
	for other, want := range map[byte]terms{2: {rate: 2 * rate, rtt: 20 * time.Millisecond}, 4: {rate: 2 * rate}} {
		for _, book := range []*Book{a, b} {
			if book == b && other == 2 {
				continue // itself
			}
			if rate, rtt := book.Terms(id(3), id(other), m.now); rate != want.rate || rtt != want.rtt {
				t.Errorf("with %d: %d bytes/s and %v are remembered", other, rate, rtt)
			}
		}
	}
	if rate, rtt := a.Terms(id(4), id(2), m.now); rate != 0 || rtt != 0 {
		t.Errorf("of another relay %d bytes/s and %v", rate, rtt)
	}
	a.Forget(id(2))
	if rate, rtt := a.Terms(id(3), id(2), m.now); rate == 0 || rtt != 0 {
		t.Errorf("the other end is forgotten: %d bytes/s and %v", rate, rtt)
	}
	a.Forget(id(3))
	if len(a.terms) != 0 {
		t.Errorf("the relay is forgotten: %v", a.terms)
	}
	for n := range 2 * maxRemembered {
		m.now = m.now.Add(time.Millisecond)
		b.remember(served{id(3), keys.NodeID{byte(n), byte(n >> 8), 1}}, terms{rate: 1, at: m.now})
	}
	if n := len(b.terms); n != maxRemembered {
		t.Errorf("%d are remembered", n)
	}
	if _, known := b.terms[served{relay: id(3)}]; known {
		t.Error("the oldest is not what was forgotten")
	}
	m.now = m.now.Add(rememberFor)
	if b.Tick(m.now); len(b.terms) != 0 {
		t.Errorf("%d are remembered for ever", len(b.terms))
	}
}

// FuzzMachines gives any messages to a desk and a book: they hold their bounds.
func FuzzMachines(f *testing.F) {
	f.Add([]byte{1, 0, 0}, uint8(1))
	f.Add((&message{kind: kindOpen, other: id(2)}).append(nil), uint8(1))
	f.Add((&message{kind: kindOffer, other: id(1), chain: ids(5, 6)}).append(nil), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, from uint8) {
		m := newMesh(t, 3)
		m.link(1, 3)
		m.link(2, 3)
		x := m.at(3)
		for n := range 8 {
			x.desk.Receive(id(from), b, m.now)
			x.book.Receive(id(from), b, m.now)
			m.now = m.now.Add(time.Duration(n) * time.Second)
			x.desk.Tick(m.now)
			x.book.Tick(m.now)
		}
		for _, c := range x.desk.Circuits() {
			if c.Asker != id(from) || !x.desk.cfg.Link(c.Other).Up {
				t.Errorf("circuit %+v", c)
			}
		}
		for _, w := range x.book.Ways() {
			if w.Relay != id(from) || len(w.Beyond) >= MaxHops {
				t.Errorf("way %+v", w)
			}
		}
	})
}

// TestForgiven: a relay that is there anew is asked at once, however often it was not
// there before; that it lost data counts for as long as it does.
func TestForgiven(t *testing.T) {
	m := newMesh(t, 3)
	m.link(1, 3)
	m.link(2, 3)
	book := m.at(1).book
	for range 6 {
		book.Ask(id(3), id(2), m.now)
		m.run(50 * time.Millisecond)
		book.Avoid(book.Ways()[0].Key, true, m.now)
		for book.Failed(id(3), id(2), m.now) {
			m.run(time.Second)
		}
	}
	book.Ask(id(3), id(2), m.now)
	m.run(50 * time.Millisecond)
	book.Avoid(book.Ways()[0].Key, true, m.now)
	if book.Ask(id(3), id(2), m.now) {
		t.Error("asked again at once")
	}
	book.Forgive(id(2))
	if !book.Failed(id(3), id(2), m.now) {
		t.Error("forgiven for another's sake")
	}
	book.Forgive(id(3))
	if !book.Poor(id(3), id(2), m.now) {
		t.Error("its losses are forgotten")
	}
	if !book.Ask(id(3), id(2), m.now) {
		t.Error("not asked")
	}
}
