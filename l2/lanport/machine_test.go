package lanport

import (
	"testing"
	"time"
)

// rig is one machine with others played by hand. It is member 5 of those that idOf numbers.
type rig struct {
	*Machine
	t       *testing.T
	now     time.Time
	said    []*Statement
	counter uint64
}

const self = 5

func newRig(t *testing.T) *rig {
	next := byte(0)
	r := &rig{t: t, now: time.Unix(1e9, 0), counter: 1}
	r.Machine = New(Config{Self: idOf(self), Epoch: 3, NewSegment: func() Segment { next++; return Segment{next} }})
	r.SetFit(r.now, true)
	return r
}

// pass lets time go by, as a shell does that calls Poll when it is due.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	for end := r.now.Add(d); ; {
		say, next := r.Poll(r.now)
		if say != nil {
			r.said = append(r.said, say)
		}
		if !next.After(r.now) {
			r.t.Fatalf("Poll wants to be called at %v, which is not after %v", next, r.now)
		}
		if next.After(end) {
			r.now = end
			return
		}
		r.now = next
	}
}

// hear has another member say something, unless told otherwise hearing us and fit.
func (r *rig) hear(from int, state State, change ...func(*Statement)) bool {
	r.counter++
	s := Statement{From: idOf(from), Segment: Segment{0x77}, Counter: r.counter, State: state, Fit: true, Heard: []ID{idOf(self)}}
	for _, f := range change {
		f(&s)
	}
	return r.Hear(r.now, s)
}

func (r *rig) is(what string, want State) {
	r.t.Helper()
	if got := r.State(); got != want {
		r.t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// forwarding is a rig whose port forwards.
func forwarding(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.Link(r.now, true)
	r.pass(Hold + time.Millisecond)
	r.is("alone on a LAN for three intervals", Forwarding)
	return r
}

// blocked is a rig that blocks, since another forwards.
func blocked(t *testing.T, by int) *rig {
	t.Helper()
	r := newRig(t)
	r.Link(r.now, true)
	r.hear(by, Forwarding)
	for range 8 {
		r.pass(Interval / 2)
		r.hear(by, Forwarding)
	}
	r.is("another forwards", Blocked)
	return r
}

func TestListensFirst(t *testing.T) {
	r := newRig(t)
	r.is("without a link", Alone)
	r.Link(r.now, true)
	r.is("with a link", Listening)
	if r.Open() {
		t.Error("a port that listens is open")
	}
	r.pass(Hold - time.Millisecond)
	r.is("for less than three intervals", Listening)
	r.pass(2 * time.Millisecond)
	r.is("after three intervals", Forwarding)
	if n := len(r.said); n < 3 || !r.said[0].Ask {
		t.Errorf("it spoke %d times meanwhile: %+v", n, r.said)
	}
}

func TestBlocksAtOnce(t *testing.T) {
	for _, c := range []struct {
		what   string
		from   int
		state  State
		change func(*Statement)
		want   State
	}{
		{"a lower one forwards", 2, Forwarding, nil, Blocked},
		{"a higher one forwards", 7, Forwarding, nil, Forwarding},
		{"a lower one blocks", 2, Blocked, nil, Forwarding},
		{"a lower one listens", 2, Listening, nil, Forwarding},
		{"a lower one that reaches nobody forwards", 2, Forwarding, func(s *Statement) { s.Fit = false }, Forwarding},
	} {
		r := forwarding(t)
		before := r.now
		if c.change == nil {
			c.change = func(*Statement) {}
		}
		r.hear(c.from, c.state, c.change)
		r.is(c.what, c.want)
		if _, next := r.Poll(r.now); next.Sub(before) > Interval {
			t.Errorf("%s: next at %v", c.what, next.Sub(before))
		}
	}
}

func TestTellsRivalAtOnce(t *testing.T) {
	r := forwarding(t)
	r.pass(100 * time.Millisecond)
	r.said = nil
	r.hear(7, Forwarding)
	r.pass(time.Millisecond)
	if len(r.said) != 1 || r.said[0].State != Forwarding {
		t.Errorf("said %+v", r.said)
	}
}

func TestForwarderGone(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		r := blocked(t, 2)
		r.said = nil
		r.pass(Hold - time.Millisecond)
		r.is("not silent for long", Blocked)
		asks := 0
		for _, s := range r.said {
			if s.Ask {
				asks++
			}
		}
		if asks < 2 {
			t.Errorf("asked %d times", asks)
		}
		r.pass(2 * time.Millisecond)
		r.is("silent for three intervals", Forwarding)
	})
	t.Run("answers when asked", func(t *testing.T) {
		r := blocked(t, 2)
		for range 20 {
			r.pass(Hold - 10*time.Millisecond)
			r.hear(2, Forwarding)
			r.is("it has answered", Blocked)
		}
	})
	t.Run("farewell", func(t *testing.T) {
		r := blocked(t, 2)
		r.hear(2, Gone)
		r.is("it has said so", Forwarding)
	})
	t.Run("farewell, and a lower one waits", func(t *testing.T) {
		r := blocked(t, 2)
		r.hear(3, Blocked)
		r.hear(2, Gone)
		r.is("the other is to take over", Blocked)
	})
}

// TestStays holds that a forwarder is not relieved by one that comes later.
func TestStays(t *testing.T) {
	r := forwarding(t)
	for range 10 {
		r.hear(1, Listening)
		r.pass(Interval)
		r.hear(1, Blocked)
		r.is("a lower one has come", Forwarding)
	}
}

func TestYieldsWhenUnfit(t *testing.T) {
	r := forwarding(t)
	r.hear(7, Blocked)
	r.SetFit(r.now, false)
	r.is("another reaches others", Blocked)
	r.hear(7, Forwarding)
	r.is("and has taken over", Blocked)
	r = forwarding(t)
	r.hear(7, Blocked, func(s *Statement) { s.Fit = false })
	r.SetFit(r.now, false)
	r.is("nobody reaches others", Forwarding)
}

// TestGivesWayToDeaf has another forward that never hears us, and so cannot give way.
func TestGivesWayToDeaf(t *testing.T) {
	r := forwarding(t)
	deaf := func(s *Statement) { s.Heard = nil }
	for range 6 {
		r.hear(7, Forwarding, deaf)
		r.pass(Interval)
	}
	r.hear(7, Forwarding, deaf)
	r.is("it does not hear us", Blocked)
}

func TestOldStatements(t *testing.T) {
	r := forwarding(t)
	old := Statement{From: idOf(2), Segment: Segment{0x77}, Counter: 1, State: Forwarding, Fit: true}
	r.hear(2, Gone)
	if r.Hear(r.now, old) {
		t.Error("an old statement was taken")
	}
	r.is("a replay", Forwarding)
	echo := Statement{From: idOf(self), Segment: Segment{0x77}, Counter: 1 << 60, State: Forwarding, Fit: true}
	if r.Hear(r.now, echo) {
		t.Error("our own echo was taken")
	}
}

// TestStarved has Poll called late, as on a host that is too busy: who could not be heard
// is not gone.
func TestStarved(t *testing.T) {
	r := blocked(t, 2)
	r.pass(10 * time.Millisecond)
	r.now = r.now.Add(5 * time.Second)
	r.Poll(r.now)
	r.is("after five seconds of sleep", Blocked)
	r.pass(2 * Hold)
	r.is("awake for long enough", Forwarding)
}

func TestSpeaksSeldom(t *testing.T) {
	r := forwarding(t)
	r.said = nil
	for range 1000 { // a second of frames that belong elsewhere, and of questions
		r.Suspect(r.now)
		r.hear(7, Blocked, func(s *Statement) { s.Ask = true })
		r.pass(time.Millisecond)
	}
	if n := len(r.said); n < 4 || n > 52 {
		t.Errorf("spoke %d times in a second", n)
	}
}

func TestSegment(t *testing.T) {
	r := newRig(t)
	first := r.Segment()
	r.Link(r.now, true)
	r.hear(7, Blocked)
	r.hear(2, Blocked)
	if r.Segment() != (Segment{0x77}) {
		t.Error("a newcomer keeps its own name")
	}
	r.pass(4 * Hold) // the others are gone
	if r.is("alone", Forwarding); r.Segment() != (Segment{0x77}) {
		t.Error("the name does not outlive the other")
	}
	// Another part of the LAN goes by the name as well.
	told := Statement{From: idOf(7), Segment: Segment{0x77}, Counter: 1 << 40, State: Forwarding}
	if r.Told(r.now, told); r.Segment() != (Segment{0x77}) {
		t.Error("a higher one has taken the name")
	}
	told.From = idOf(1)
	if r.Told(r.now, told); r.Segment() != (Segment{0x77}) {
		t.Error("one that was never on the LAN has taken the name")
	}
	told.From = idOf(2)
	if r.Told(r.now, told); r.Segment() == (Segment{0x77}) {
		t.Error("two LANs have one name")
	}
	second := r.Segment()
	told.Segment = second
	if r.Told(r.now, told); r.Segment() != second {
		t.Error("it takes the new name, too, without having been there since")
	}
	if r.Link(r.now, false); r.Segment() == second || r.Segment() == first {
		t.Error("the LAN was left, and its name kept")
	}
}

func TestLeave(t *testing.T) {
	r := forwarding(t)
	r.hear(7, Blocked)
	s := r.Leave()
	if s.State != Gone || !s.Hears(idOf(7)) || s.Counter <= r.said[len(r.said)-1].Counter {
		t.Errorf("%+v", s)
	}
}

func TestNeighborsAreBounded(t *testing.T) {
	r := forwarding(t)
	for n := range 10 * maxNeighbors {
		r.hear(100+n, Blocked)
	}
	if len(r.neighbors) > maxNeighbors || len(r.known) > 4*maxNeighbors {
		t.Errorf("%d neighbours, %d counters", len(r.neighbors), len(r.known))
	}
	r.pass(Interval)
	if n := len(r.said[len(r.said)-1].Heard); n != MaxHeard {
		t.Errorf("lists %d", n)
	}
}
