package join

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/keys"
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// memoryLog is a keys.LogStore. It stands for the disk: it outlives desks.
type memoryLog struct {
	mu      sync.Mutex
	entries [][]byte
	fail    func(entry []byte) (keep bool, err error)
}

func (l *memoryLog) Append(_ string, entry []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		if keep, err := l.fail(entry); err != nil {
			if keep {
				l.entries = append(l.entries, bytes.Clone(entry))
			}
			return err
		}
	}
	l.entries = append(l.entries, bytes.Clone(entry))
	return nil
}

func (l *memoryLog) ReadLog(string) ([][]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries), nil
}

// office is a network with one signer and its desk.
type office struct {
	root   *keys.Root
	admin  *keys.Identity
	signer *keys.Signer
	store  *memoryLog
	log    *keys.IssueLog
	desk   *Desk
	taken  map[string]bool
	state  []byte
	gone   map[[32]byte]bool
	now    time.Time
}

func newOffice(t testing.TB) *office {
	t.Helper()
	o := &office{
		now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), store: &memoryLog{},
		taken: map[string]bool{}, gone: map[[32]byte]bool{}, state: []byte("the network's state"),
	}
	o.root = must(keys.NewRoot("home", o.now))(t)
	o.admin = must(keys.NewIdentity())(t)
	o.signer = must(keys.NewSigner(o.admin, must(o.root.IssueSigner(o.admin.Public(), o.now))(t)))(t)
	o.restart(t)
	return o
}

func (o *office) trust() keys.Trust { return keys.Trust{Root: o.root.Public()} }

// restart is what happens after a kill: only the log is left.
func (o *office) restart(t testing.TB) {
	t.Helper()
	o.log = must(keys.OpenIssueLog(o.store))(t)
	o.desk = NewDesk(DeskConfig{
		Signer: o.signer, Trust: o.trust(), Log: o.log,
		TakenName:    func(name string) bool { return o.taken[name] },
		Revoked:      func(p keys.Public) bool { return o.gone[p.Sign] },
		NetworkState: func() []byte { return o.state },
	})
}

func (o *office) invite(t testing.TB, uses int) *keys.Invite {
	t.Helper()
	i := must(keys.NewInvite(o.signer, keys.InviteOptions{
		Root: o.root.Public(), Network: "home", Entries: []string{"home.example:51830"}, Uses: uses, Expires: o.now.Add(24 * time.Hour),
	}, o.now))(t)
	if err := o.log.RecordInvite(i); err != nil {
		t.Fatal(err)
	}
	return i
}

func (o *office) joiner(t testing.TB, name string, invite *keys.Invite) *Joiner {
	t.Helper()
	return NewJoiner(JoinerConfig{
		Identity: must(keys.NewIdentity())(t), Name: name, Invite: invite, Root: o.root.Public(), Now: o.now,
	})
}

// link carries messages between a joiner and a desk. It may lose, repeat and
// reorder them; it never changes one.
type link struct {
	r    *rand.Rand
	loss float64
	dup  float64
	held [][]byte // of the desk, not yet delivered
}

// round lets the joiner act once and delivers what the link lets through.
func (o *office) round(t testing.TB, j *Joiner, l *link) {
	t.Helper()
	out, _ := j.Tick(o.now)
	if out != nil {
		copies := 1
		if l.r.Float64() < l.dup {
			copies = 2
		}
		for range copies {
			if l.r.Float64() < l.loss {
				continue
			}
			if len(out) > MaxMessage {
				t.Fatalf("joiner's message has %d bytes", len(out))
			}
			l.held = append(l.held, o.desk.Receive(j.public, out, o.now)...)
		}
	}
	l.r.Shuffle(len(l.held), func(a, b int) { l.held[a], l.held[b] = l.held[b], l.held[a] })
	keep := l.held[:0:0]
	for _, msg := range l.held {
		if len(msg) > MaxMessage {
			t.Fatalf("desk's message has %d bytes", len(msg))
		}
		switch x := l.r.Float64(); {
		case x < l.loss:
		case x < l.loss+l.dup:
			keep = append(keep, msg) // again, later
			fallthrough
		default:
			_ = j.Receive(msg, o.now)
		}
	}
	l.held = keep
	if _, wake := j.Tick(o.now); !wake.IsZero() && wake.After(o.now) {
		o.now = wake
	}
}

func perfect() *link { return &link{r: rand.New(rand.NewPCG(1, 1))} }

// run goes on until the joiner rests or the rounds are over.
func (o *office) run(t testing.TB, j *Joiner, l *link, rounds int) {
	t.Helper()
	for range rounds {
		if j.Stage() == Joined || j.Stage() == Failed {
			return
		}
		o.round(t, j, l)
	}
}

// check holds a joined joiner to what it must have.
func (o *office) check(t testing.TB, j *Joiner, name string) {
	t.Helper()
	r := j.Result()
	if j.Err() != nil || r == nil || j.Stage() != Joined {
		t.Fatalf("not joined: %v, stage %v", j.Err(), j.Stage())
	}
	crt := must(o.trust().Verify(r.Chain, o.now))(t)
	if crt.Public != j.public || crt.Name != name || crt.ID != j.public.ID() || r.Certificate.Name != name ||
		!bytes.Equal(r.NetworkState, o.state) || !r.Root.Equal(o.root.Public()) || r.ClockError != nil {
		t.Fatalf("got %+v", r)
	}
	if out, wake := j.Tick(o.now.Add(time.Hour)); out != nil || !wake.IsZero() {
		t.Error("goes on after it has joined")
	}
}

func TestJoinByInvite(t *testing.T) {
	for _, size := range []int{0, 1, maxPart, maxPart + 1, maxPart * maxParts} {
		t.Run(fmt.Sprintf("%d bytes of state", size), func(t *testing.T) {
			o := newOffice(t)
			o.state = bytes.Repeat([]byte{7}, size)
			j := o.joiner(t, "laptop", o.invite(t, 1))
			began := o.now
			o.run(t, j, perfect(), 3)
			o.check(t, j, "laptop")
			if !o.now.Equal(began) {
				t.Errorf("took %v on a perfect link", o.now.Sub(began))
			}
			if j.Words() != nil {
				t.Error("shows words")
			}
		})
	}
}

func TestJoinByWords(t *testing.T) {
	o := newOffice(t)
	j := o.joiner(t, "laptop", nil)
	l := perfect()
	o.run(t, j, l, 20)
	if j.Stage() != Waiting || len(j.Words()) != keys.WordCount {
		t.Fatalf("stage %v, words %v, %v", j.Stage(), j.Words(), j.Err())
	}
	requests := o.desk.Requests(o.now)
	if len(requests) != 1 || !slices.Equal(requests[0].Words, j.Words()) || requests[0].Name != "laptop" || requests[0].ID != j.public.ID() {
		t.Fatalf("got %+v", requests)
	}
	for _, words := range []string{"", "laptop", j.public.ID().String(), strings.Join(j.Words()[:5], " ")} {
		if _, err := o.desk.Approve(words, nil, o.now); !errors.Is(err, ErrNoRequest) {
			t.Errorf("approved by %q: %v", words, err)
		}
	}
	request := must(o.desk.Approve(strings.ToUpper(strings.Join(j.Words(), "-")), keys.AllRoles(), o.now))(t)
	if request.ID != j.public.ID() {
		t.Fatalf("got %+v", request)
	}
	for _, msg := range o.desk.Answers(request.ID, o.now) { // at once
		if err := j.Receive(msg, o.now); err != nil {
			t.Fatal(err)
		}
	}
	o.check(t, j, "laptop")
	if got := j.Result().Certificate.Roles.String(); got != keys.AllRoles().String() {
		t.Errorf("roles %q", got)
	}
	if len(o.desk.Requests(o.now)) != 0 {
		t.Error("still waits")
	}
	if _, err := o.desk.Approve(strings.Join(j.Words(), " "), nil, o.now); !errors.Is(err, ErrNoRequest) {
		t.Errorf("approved twice: %v", err)
	}
}

func TestDeny(t *testing.T) {
	o := newOffice(t)
	j := o.joiner(t, "laptop", nil)
	o.run(t, j, perfect(), 5)
	request := must(o.desk.Deny(strings.Join(j.Words(), " "), o.now))(t)
	if len(o.desk.Requests(o.now)) != 0 || len(o.desk.Answers(request.ID, o.now)) != 1 {
		t.Error("denied request still waits")
	}
	if _, err := o.desk.Approve(strings.Join(j.Words(), " "), nil, o.now); err == nil {
		t.Error("approved after denial")
	}
	o.run(t, j, perfect(), 5)
	if !errors.Is(j.Err(), ErrDenied) {
		t.Fatalf("got %v", j.Err())
	}
	again := NewJoiner(JoinerConfig{Identity: j.config.Identity, Name: "laptop", Root: o.root.Public(), Now: o.now})
	o.run(t, again, perfect(), 5)
	if again.Stage() != Waiting {
		t.Errorf("cannot ask again: %v", again.Err())
	}
}

// TestLossAndReorder joins many times over links that lose up to 40 percent,
// repeat and reorder, both ways of joining.
func TestLossAndReorder(t *testing.T) {
	for seed := range uint64(60) {
		o := newOffice(t)
		o.state = bytes.Repeat([]byte("state"), 500) // three parts
		l := &link{r: rand.New(rand.NewPCG(seed, 3)), loss: 0.4, dup: 0.3}
		if seed%2 == 0 {
			j := o.joiner(t, "laptop", o.invite(t, 1))
			o.run(t, j, l, 500)
			o.check(t, j, "laptop")
			continue
		}
		j := o.joiner(t, "laptop", nil)
		for range 500 {
			if requests := o.desk.Requests(o.now); len(requests) == 1 && slices.Equal(requests[0].Words, j.Words()) {
				must(o.desk.Approve(strings.Join(j.Words(), " "), nil, o.now))(t)
			}
			if o.round(t, j, l); j.Stage() == Joined {
				break
			}
		}
		o.check(t, j, "laptop")
		if len(o.log.Issues()) != 1 {
			t.Errorf("seed %d: %d certificates", seed, len(o.log.Issues()))
		}
	}
}

// TestBackoff holds the intervals of an unanswered joiner.
func TestBackoff(t *testing.T) {
	o := newOffice(t)
	j := o.joiner(t, "laptop", nil)
	var sent []time.Duration
	began, first := o.now, []byte(nil)
	for {
		out, wake := j.Tick(o.now)
		if wake.IsZero() {
			break
		}
		if out != nil {
			sent = append(sent, o.now.Sub(began))
			if first == nil {
				first = out
			}
			if !bytes.Equal(out, first) {
				t.Fatal("a repetition differs")
			}
		}
		o.now = wake
	}
	want := []time.Duration{0, 200, 600, 1400, 3000, 5000, 7000}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(sent[:7], want) {
		t.Errorf("sent at %v", sent[:7])
	}
	if !errors.Is(j.Err(), ErrNoSigner) || o.now.Sub(began) > requestLife {
		t.Errorf("after %v: %v", o.now.Sub(began), j.Err())
	}
}

func TestNobodyApproves(t *testing.T) {
	o := newOffice(t)
	j := o.joiner(t, "laptop", nil)
	l := perfect()
	o.run(t, j, l, 1000)
	if !errors.Is(j.Err(), ErrNotApproved) {
		t.Fatalf("got %v", j.Err())
	}
	if n := len(o.desk.Requests(o.now.Add(requestLife))); n != 0 {
		t.Errorf("%d requests kept", n)
	}
}

// TestRefusals has a case for each way to be refused.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(o *office) *Joiner
		want  error
	}{
		{"invite of another network", func(o *office) *Joiner {
			return newOffice(t).joiner(t, "a", o.invite(t, 1))
		}, ErrWrongNetwork},
		{"no root", func(o *office) *Joiner {
			return NewJoiner(JoinerConfig{Identity: o.admin, Name: "a", Now: o.now})
		}, ErrWrongNetwork},
		{"invite expired for the joiner", func(o *office) *Joiner {
			i := o.invite(t, 1)
			o.now = o.now.Add(25 * time.Hour)
			return o.joiner(t, "a", i)
		}, keys.ErrExpired},
		{"invite expired for the signer", func(o *office) *Joiner {
			j := o.joiner(t, "a", o.invite(t, 1))
			o.now = o.now.Add(25 * time.Hour)
			return j
		}, keys.ErrExpired},
		{"invite never recorded", func(o *office) *Joiner {
			j := o.joiner(t, "a", o.invite(t, 1))
			o.store.entries = nil
			o.restart(t)
			return j
		}, keys.ErrUnknown},
		{"invite used", func(o *office) *Joiner {
			i := o.invite(t, 1)
			o.run(t, o.joiner(t, "first", i), perfect(), 5)
			return o.joiner(t, "a", i)
		}, keys.ErrUsed},
		{"invite used, after a restart", func(o *office) *Joiner {
			i := o.invite(t, 1)
			o.run(t, o.joiner(t, "first", i), perfect(), 5)
			o.restart(t)
			return o.joiner(t, "a", i)
		}, keys.ErrUsed},
		{"invite revoked", func(o *office) *Joiner {
			i := o.invite(t, 1)
			if err := o.log.RevokeInvite(i.ID); err != nil {
				t.Fatal(err)
			}
			return o.joiner(t, "a", i)
		}, keys.ErrRevoked},
		{"node revoked, by invite", func(o *office) *Joiner {
			j := o.joiner(t, "a", o.invite(t, 1))
			o.gone[j.public.Sign] = true
			return j
		}, ErrRevokedNode},
		{"node revoked, by words", func(o *office) *Joiner {
			j := o.joiner(t, "a", nil)
			o.gone[j.public.Sign] = true
			return j
		}, ErrRevokedNode},
		{"name invalid", func(o *office) *Joiner { return o.joiner(t, "A b", nil) }, errAny},
		{"too many requests", func(o *office) *Joiner {
			for range maxPending {
				o.run(t, o.joiner(t, "x", nil), perfect(), 3)
			}
			return o.joiner(t, "a", nil)
		}, ErrBusy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOffice(t)
			j := tt.setup(o)
			issued := len(o.log.Issues())
			o.run(t, j, perfect(), 20)
			if j.Err() == nil || tt.want != errAny && !errors.Is(j.Err(), tt.want) || j.Result() != nil {
				t.Fatalf("got %v, %v", j.Err(), j.Stage())
			}
			if strings.Contains(j.Err().Error(), "\n") {
				t.Errorf("not one line: %q", j.Err())
			}
			if len(o.log.Issues()) != issued {
				t.Error("a certificate was issued")
			}
		})
	}
}

var errAny = errors.New("any")
