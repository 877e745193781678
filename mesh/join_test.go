package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/mesh/api"
	"meshd/peer/udp/udptest"
)

// joinLimit is within which a join that cannot be ends (CONTRACT, THREATS).
const joinLimit = 10 * time.Second

// fails expects Run to end with an error of one line that says what.
func (n *node) fails(limit time.Duration, what string) {
	n.t.Helper()
	err := n.failure(limit)
	if err == nil || !strings.Contains(err.Error(), what) {
		n.t.Errorf("%s ended with %v, want %q", n.name, err, what)
	}
	if err != nil && (strings.ContainsRune(err.Error(), '\n') || strings.Contains(err.Error(), "join: join:")) {
		n.t.Errorf("%s ended with %q, want one line that says it once", n.name, err)
	}
	if n.host.opened != 0 {
		n.t.Errorf("%s opened a device although it did not join", n.name)
	}
}

// tampered changes one character inside an invite.
func tampered(invite string) string {
	at := len(invite) / 2
	c := byte('A')
	if invite[at] == c {
		c = 'B'
	}
	return invite[:at] + string(c) + invite[at+1:]
}

func TestInvitesThatDoNotServe(t *testing.T) {
	for _, c := range []struct {
		name, want string
		join       func(t *testing.T, w *world, a *node) []string
	}{
		{"a changed character", "not a complete invite", func(_ *testing.T, _ *world, a *node) []string {
			return []string{tampered(a.invite(1))}
		}},
		{"cut", "not a complete invite", func(_ *testing.T, _ *world, a *node) []string {
			invite := a.invite(1)
			return []string{invite[:len(invite)-9]}
		}},
		{"expired", "expired", func(_ *testing.T, _ *world, a *node) []string {
			invite := a.invite(1)
			time.Sleep(2 * time.Hour)
			return []string{invite}
		}},
		{"used", "used up", func(_ *testing.T, w *world, a *node) []string {
			invite := a.invite(1)
			w.up(w.host("198.18.0.7"), "first", invite).waitReady(5 * time.Second)
			return []string{invite}
		}},
		{"of another network at this address", "another network", func(_ *testing.T, w *world, a *node) []string {
			b := w.up(w.host("198.18.0.7"), "other")
			b.waitReady(5 * time.Second)
			invite := b.invite(1)
			if err := b.stop(); err != nil {
				t.Fatal(err)
			}
			if err := a.stop(); err != nil {
				t.Fatal(err)
			}
			b.host.machine.SetAddr()
			a.host.move("198.18.0.7")
			w.upIn(a.host, "home", a.state).waitReady(5 * time.Second)
			return []string{invite}
		}},
		{"two invites", "more than one invite", func(_ *testing.T, _ *world, a *node) []string {
			return []string{a.invite(1), a.invite(1)}
		}},
		{"nobody there", "no answer", func(t *testing.T, _ *world, a *node) []string {
			invite := a.invite(1)
			if err := a.stop(); err != nil {
				t.Fatal(err)
			}
			return []string{invite}
		}},
		{"nobody there, and expired", "expired on", func(t *testing.T, _ *world, a *node) []string {
			invite := a.invite(1)
			if err := a.stop(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Hour)
			return []string{invite}
		}},
		{"a dead address", "no answer", func(*testing.T, *world, *node) []string { return []string{"198.18.9.9"} }},
		{"a name that is not there", "no such host", func(*testing.T, *world, *node) []string { return []string{"nowhere.example"} }},
		{"a bad port", "not between 1 and 65535", func(*testing.T, *world, *node) []string { return []string{"198.18.0.1:0"} }},
		{"itself", "not a member", func(*testing.T, *world, *node) []string { return []string{"198.18.0.2"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				a := w.up(w.host("198.18.0.1"), "home")
				a.waitReady(5 * time.Second)
				b := w.up(w.host("198.18.0.2"), "laptop", c.join(t, w, a)...)
				b.fails(joinLimit, c.want)
			})
		})
	}
}

// Somebody with a network of his own has taken home's address.
func TestRogueAtHomesAddress(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		invite := a.invite(1)
		b := w.up(w.host("198.18.0.2"), "member", a.invite(1))
		b.waitReady(5 * time.Second)
		for _, n := range []*node{a, b} {
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
		}
		a.host.machine.SetAddr()
		rogue := w.up(w.host("198.18.0.1"), "home")
		rogue.waitReady(5 * time.Second)
		w.up(w.host("198.18.0.3"), "joiner", invite).fails(joinLimit, "another network")
		again := w.upIn(b.host, "member", b.state, "198.18.0.1")
		if err := again.failure(joinLimit); err == nil || !strings.Contains(err.Error(), "another network") {
			t.Errorf("a member that is sent to another network ended with %v", err)
		}
		if peers := rogue.status().Peers; len(peers) != 0 {
			t.Errorf("the rogue knows %+v", peers)
		}
	})
}

// A member that is no signer introduces a joiner.
func TestIntroducer(t *testing.T) {
	for _, c := range []struct {
		name string
		dead bool
		want string
	}{
		{"signer reachable", false, ""},
		{"signer dead", true, "signer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				a := w.up(w.host("198.18.0.1"), "home")
				a.waitReady(5 * time.Second)
				b := w.up(w.host("198.18.0.2"), "entry", a.invite(1))
				b.waitReady(5 * time.Second)
				invite := a.invite(1)
				if c.dead {
					a.kill()
				}
				// The joiner cannot reach the signer itself.
				j := w.host("198.18.0.3")
				w.net.Partition([]*udptest.Host{a.host.machine}, []*udptest.Host{j.machine})
				joiner := w.up(j, "joiner", invite, "198.18.0.2")
				if c.dead {
					joiner.fails(joinLimit, c.want)
					return
				}
				joiner.waitReady(5 * time.Second)
				reaches(t, joiner, b, time.Second)
			})
		})
	}
}

// Words can be compared at the admin's node although the joiner knocks elsewhere.
func TestApprovalThroughIntroducer(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "entry", a.invite(1))
		b.waitReady(5 * time.Second)
		j := w.up(w.host("198.18.0.3"), "joiner", "198.18.0.2")
		words := <-j.words
		time.Sleep(time.Second)
		if _, err := a.ask().Approve(t.Context(), words); err != nil {
			t.Fatal(err)
		}
		j.waitReady(5 * time.Second)
		reaches(t, j, a, 5*time.Second)
	})
}

func TestSignerKilledInTheMiddle(t *testing.T) {
	for _, after := range []time.Duration{0, 15, 30, 45, 60, 80, 100} {
		t.Run(fmt.Sprint(after*time.Millisecond), func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				h := w.host("198.18.0.1")
				h.machine.SetLink(line10ms, line10ms)
				a := w.up(h, "home")
				a.waitReady(5 * time.Second)
				invite := a.invite(1)
				b := w.up(w.host("198.18.0.2"), "laptop", invite)
				time.Sleep(after * time.Millisecond)
				a.kill()
				select {
				case err := <-b.done:
					b.done <- err
					if b.host.opened != 0 {
						t.Error("a device was opened without a certificate")
					}
					b = w.upIn(b.host, "laptop", b.state, invite)
				case <-time.After(joinLimit): // it has its certificate and waits for a member
				}
				a = w.upIn(h, "home", a.state)
				a.waitReady(5 * time.Second)
				b.waitReady(joinLimit)
				reaches(t, b, a, 5*time.Second)
				if n := len(a.status().Peers); n != 1 {
					t.Errorf("home knows %d members, want 1", n)
				}
			})
		})
	}
}

func TestJoinWithLoss(t *testing.T) {
	for _, c := range []struct {
		name  string
		loss  float64 // of each of the two lines on the way
		limit time.Duration
		tries int // at so much loss it may say that nobody answers
	}{{"10 percent", 0.051, 6 * time.Second, 1}, {"30 percent", 0.163, 2 * joinLimit, 4}} {
		for seed := range uint64(12) {
			t.Run(fmt.Sprintf("%s/%d", c.name, seed), func(t *testing.T) {
				inWorld(t, seed, func(t *testing.T, w *world) {
					lossy := udptest.Link{Delay: 5 * time.Millisecond, Loss: c.loss}
					a, b := w.host("198.18.0.1"), w.host("198.18.0.2")
					a.machine.SetLink(lossy, lossy)
					b.machine.SetLink(lossy, lossy)
					home := w.up(a, "home")
					home.waitReady(5 * time.Second)
					invite := home.invite(1)
					laptop := w.up(b, "laptop", invite)
					for range c.tries - 1 {
						select {
						case <-laptop.ready:
						case <-laptop.done:
							laptop.ended = true
							laptop = w.upIn(b, "laptop", laptop.state, invite)
						}
					}
					laptop.waitReady(c.limit)
				})
			})
		}
	}
}

func TestTwoOfOneName(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		invite := a.invite(2)
		b := w.up(w.host("198.18.0.2"), "laptop", invite)
		c := w.up(w.host("198.18.0.3"), "laptop", invite)
		for _, n := range []*node{b, c} {
			n.waitReady(5 * time.Second)
			n.wait(api.WaitSpec{Peers: 2}, 10*time.Second)
		}
		names := map[string]bool{b.status().Self.Name: true, c.status().Self.Name: true}
		if len(names) != 2 || !names["laptop"] {
			t.Errorf("the two are called %v", names)
		}
		for name := range names {
			a.wait(api.WaitSpec{Peer: name}, 5*time.Second)
		}
	})
}

func TestDenied(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "laptop", "198.18.0.1")
		words := <-b.words
		time.Sleep(time.Second)
		if err := a.ask().Deny(t.Context(), words); err != nil {
			t.Fatal(err)
		}
		b.fails(3*time.Second, "denied")
		if r, err := a.ask().Requests(t.Context()); err != nil || len(r) != 0 {
			t.Errorf("requests after the denial: %+v, %v", r, err)
		}
	})
}

// Two wait, and the admin takes minutes; each is approved by its own words.
func TestApprovedLate(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", "198.18.0.1")
		c := w.up(w.host("198.18.0.3"), "c", "198.18.0.1")
		ofB, ofC := <-b.words, <-c.words
		time.Sleep(7 * time.Minute)
		if r, err := a.ask().Requests(t.Context()); err != nil || len(r) != 2 {
			t.Fatalf("requests: %+v, %v", r, err)
		}
		if _, err := a.ask().Approve(t.Context(), ofC); err != nil {
			t.Fatal(err)
		}
		c.waitReady(5 * time.Second)
		if b.host.opened != 0 {
			t.Error("the other one was let in as well")
		}
		if _, err := a.ask().Approve(t.Context(), ofB); err != nil {
			t.Fatal(err)
		}
		b.waitReady(5 * time.Second)
		reaches(t, b, c, 5*time.Second)
	})
}

// Nobody approves: the joiner gives up by itself and says so.
func TestNeverApproved(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", "198.18.0.1")
		<-b.words
		b.fails(12*time.Minute, "no admin has approved")
	})
}

func TestJoinerRestartedWhileWaiting(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", "198.18.0.1")
		old := <-b.words
		time.Sleep(time.Second)
		b.kill()
		b = w.upIn(b.host, "b", b.state, "198.18.0.1")
		words := <-b.words
		if words == old {
			t.Error("the words are the same after a restart: the nonce was not fresh")
		}
		time.Sleep(3 * time.Second)
		if _, err := a.ask().Approve(t.Context(), old); err == nil {
			t.Error("the old words were accepted")
		}
		if _, err := a.ask().Approve(t.Context(), words); err != nil {
			t.Fatal(err)
		}
		b.waitReady(5 * time.Second)
	})
}

// Who joins before its network is there waits for a name server that answers.
func TestJoinBeforeNamesResolve(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", "late.example")
		select {
		case words := <-b.words:
			if time.Now().Before(lateDNS) {
				t.Error("it has met somebody by a name that is not resolved")
			}
			time.Sleep(3 * time.Second) // until the request is there
			if _, err := a.ask().Approve(t.Context(), words); err != nil {
				t.Fatal(err)
			}
		case <-time.After(2 * time.Minute):
			t.Fatal("it did not come")
		}
		b.waitReady(5 * time.Second)
	})
}

// The admin's node restarts: the joiner shows new words, and they work.
func TestAdminRestartedWhileOneWaits(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", "198.18.0.1")
		<-b.words
		time.Sleep(time.Second)
		a.kill()
		a = w.upIn(a.host, "home", a.state)
		a.waitReady(5 * time.Second)
		select {
		case words := <-b.words:
			time.Sleep(time.Second)
			if _, err := a.ask().Approve(t.Context(), words); err != nil {
				t.Fatal(err)
			}
			b.waitReady(5 * time.Second)
		case <-time.After(time.Minute):
			t.Fatal("no new words within a minute of the admin's return")
		}
	})
}

// A network that is slow to answer, since it is far away or has much to do, is waited for as long as it answers.
func TestJoinOfSlowNetwork(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		invite := a.invite(1)
		slow := udptest.Link{Delay: 700 * time.Millisecond} // one way: two round trips each for path and session, three for the hello
		a.host.machine.SetLink(slow, slow)
		b := w.up(w.host("198.18.0.2"), "laptop", invite)
		if took := b.joined(30 * time.Second); took < joinLimit {
			t.Errorf("it took %v: that is not slow", took)
		}
		a.host.machine.SetLink(udptest.Link{}, udptest.Link{})
		b.waitReady(joinLimit)
	})
}

// Somewhere beyond two satellites everything takes its time, and works.
func TestJoinFromFarAway(t *testing.T) {
	for _, oneWay := range []time.Duration{300 * time.Millisecond, 500 * time.Millisecond, 700 * time.Millisecond, time.Second} {
		t.Run(oneWay.String(), func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				a := w.up(w.host("198.18.0.1"), "home")
				a.waitReady(5 * time.Second)
				far := w.host("198.18.0.2")
				far.machine.SetLink(udptest.Link{Delay: oneWay}, udptest.Link{Delay: oneWay})
				began := time.Now()
				b := w.up(far, "laptop", a.invite(1))
				b.waitReady(time.Minute)
				t.Logf("ready after %v", time.Since(began))
			})
		})
	}
}

// More join at once than would have room with two round trips of a slow link for each.
func TestManyJoinAtOnce(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = slog.LevelError
		const size = 80
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		invite := a.invite(size)
		slow := udptest.Link{Delay: 300 * time.Millisecond}
		a.host.machine.SetLink(slow, slow)
		nodes := make([]*node, size)
		for i := range nodes {
			nodes[i] = w.up(w.host(fmt.Sprintf("198.18.1.%d", i+1)), fmt.Sprint("n", i), invite)
		}
		for _, n := range nodes {
			n.joined(30 * time.Second)
		}
	})
}

// An invite for three is raced by ten through two entries.
func TestRaceForAnInvite(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "entry", a.invite(1))
		b.waitReady(5 * time.Second)
		b.wait(api.WaitSpec{Peers: 1}, 5*time.Second)
		invite := a.invite(3)
		var joiners []*node
		for i := range 10 {
			h := w.host(fmt.Sprintf("198.18.1.%d", i+1))
			if i%2 == 1 { // these come through the introducer
				w.net.Partition([]*udptest.Host{a.host.machine}, []*udptest.Host{h.machine})
			}
			joiners = append(joiners, w.up(h, fmt.Sprint("j", i), invite, "198.18.0.2"))
		}
		time.Sleep(joinLimit)
		in := 0
		for _, j := range joiners {
			select {
			case <-j.ready:
				in++
			case err := <-j.done:
				j.done <- err
				if err == nil || !strings.Contains(err.Error(), "used up") {
					t.Errorf("%s: %v", j.name, err)
				}
			default:
				t.Errorf("%s is neither in nor out", j.name)
			}
		}
		if in != 3 {
			t.Errorf("%d got in by an invite for 3", in)
		}
		if n := len(a.status().Peers); n != 4 {
			t.Errorf("home knows %d members, want 4", n)
		}
	})
}

// For a member --join adds an entry point.
func TestJoinAsMember(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "b", a.invite(1))
		b.waitReady(5 * time.Second)
		invite := a.invite(1)
		b.kill()
		a.kill()
		a.host.move("198.18.0.44")
		a = w.upIn(a.host, "home", a.state)
		a.waitReady(5 * time.Second)
		b.host.move("198.18.0.55") // neither is where the other remembers it
		b = w.upIn(b.host, "b", b.state, "198.18.0.44")
		b.waitReady(joinLimit)
		reaches(t, b, a, 5*time.Second)
		id := b.status().Self.ID
		// An invite of this network is no reason to join it again.
		b.kill()
		b = w.upIn(b.host, "b", b.state, invite)
		b.waitReady(joinLimit)
		if got := b.status().Self; got.ID != id || got.Name != "b" {
			t.Errorf("it is now %q %q", got.Name, got.ID)
		}
		// Another network's is an error, and so is its address.
		other := w.up(w.host("198.18.0.9"), "other")
		other.waitReady(5 * time.Second)
		for _, spec := range []string{other.invite(1), "198.18.0.9"} {
			b.kill()
			b = w.upIn(b.host, "b", b.state, spec)
			if err := b.failure(joinLimit); err == nil || !strings.Contains(err.Error(), "another network") {
				t.Errorf("join of another network: %v", err)
			}
		}
		b = w.upIn(b.host, "b", b.state)
		b.waitReady(5 * time.Second)
		reaches(t, b, a, 5*time.Second)
	})
}

func TestResumeWithoutState(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		h := w.host("198.18.0.1")
		cfg := w.config(h, "a", filepath.Join(t.TempDir(), "a"))
		cfg.Resume = true
		n := w.run(h, "a", cfg)
		n.fails(time.Second, "resume")
		// And it has not founded anything: without --resume the next start does.
		cfg.Resume = false
		n = w.run(h, "a", cfg)
		n.waitReady(time.Second)
		id := n.status().Network.ID
		n.kill()
		cfg.Resume = true
		n = w.run(n.host, "a", cfg)
		n.waitReady(time.Second)
		if n.status().Network.ID != id {
			t.Error("a second network was founded")
		}
	})
}

func TestUnderlays(t *testing.T) {
	for _, c := range []struct {
		name  string
		hosts [3][]string // addresses of home, b, c
		entry string
	}{
		{"ipv6 only", [3][]string{{"2001:db8::1"}, {"2001:db8::2"}, {"2001:db8::3"}}, "[2001:db8::1]:51830"},
		{"home has both", [3][]string{{"198.18.0.1", "2001:db8::1"}, {"198.18.0.2"}, {"198.18.0.3", "2001:db8::3"}}, ""},
		{"a host name", [3][]string{{"198.18.0.1"}, {"198.18.0.2"}, {"198.18.0.3"}}, "home.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				var nodes []*node
				for i, addrs := range c.hosts {
					h := w.host(addrs[0])
					var all []netip.Addr
					for _, a := range addrs {
						all = append(all, netip.MustParseAddr(a))
					}
					h.machine.SetAddr(all...)
					h.dns = map[string]netip.Addr{"home.example": netip.MustParseAddr(c.hosts[0][0])}
					var join []string
					if i > 0 {
						join = append(join, nodes[0].invite(1))
						if c.entry != "" {
							join = append(join, c.entry)
						}
					}
					n := w.up(h, fmt.Sprint("n", i), join...)
					n.waitReady(5 * time.Second)
					nodes = append(nodes, n)
				}
				for _, n := range nodes {
					n.wait(api.WaitSpec{Peers: 2}, 10*time.Second)
					for _, m := range nodes {
						if m != n {
							reaches(t, n, m, 5*time.Second)
						}
					}
				}
			})
		})
	}
}

// Whatever a node is doing, it ends when it is told to.
func TestEndInEveryPhase(t *testing.T) {
	for _, c := range []struct {
		name  string
		join  string
		after time.Duration
	}{
		{"resolving", "slow.example", time.Second},
		{"waiting for names", "late.example", time.Second},
		{"hello", "198.18.9.9", time.Second},
		{"at once", "198.18.0.1", 0},
		{"meeting", "198.18.0.1", 12 * time.Millisecond},
		{"waiting for approval", "198.18.0.1", 5 * time.Second},
		{"ready", "", 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				a := w.up(w.host("198.18.0.1"), "home")
				a.waitReady(5 * time.Second)
				h := w.host("198.18.0.2")
				h.machine.SetLink(line10ms, line10ms)
				join := c.join
				if join == "" {
					join = a.invite(1)
				}
				b := w.up(h, "b", join)
				time.Sleep(c.after)
				began := time.Now()
				if err := b.stop(); err != nil {
					t.Errorf("Run returned %v", err)
				}
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("it took %v to end", took)
				}
			})
		})
	}
}

// A node that is told to go down by its control socket ends without error.
func TestDown(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		if err := a.ask().Down(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := a.failure(3 * time.Second); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}
