package mesh_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/l2/l2test"
	"meshd/mesh"
	"meshd/mesh/api"
	"meshd/peer/udp/udptest"
)

// mesh starts n nodes that all know each other.
func (w *world) mesh(n int) []*node {
	w.t.Helper()
	nodes := make([]*node, n)
	for i := range nodes {
		var join []string
		if i > 0 {
			join = append(join, nodes[0].invite(1))
		}
		nodes[i] = w.up(w.host(fmt.Sprintf("198.18.%d.%d", i/200, i%200+1)), fmt.Sprint("n", i), join...)
		nodes[i].waitReady(10 * time.Second)
	}
	for _, n := range nodes {
		n.wait(api.WaitSpec{Peers: len(nodes) - 1}, 20*time.Second)
	}
	return nodes
}

// peer is what n says of a member.
func (n *node) peer(name string) api.Peer {
	n.t.Helper()
	for _, p := range n.status().Peers {
		if p.Name == name {
			return p
		}
	}
	n.t.Fatalf("%s does not know %s", n.name, name)
	return api.Peer{}
}

// becomes waits until n sees a member in one of the states.
func (n *node) becomes(name string, limit time.Duration, states ...api.PeerState) time.Duration {
	n.t.Helper()
	began := time.Now()
	for !slices.Contains(states, n.peer(name).State) {
		if time.Since(began) > limit {
			n.t.Fatalf("%s sees %s as %s after %v, want %v", n.name, name, n.peer(name).State, limit, states)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

// restart starts a node again that has ended.
func (w *world) restart(n *node, join ...string) *node {
	return w.upIn(n.host, n.name, n.state, join...)
}

// A node is stopped hard and comes back with the same addresses; traffic flows
// again in both directions, whichever of the two has the higher key and whoever
// sends first.
func TestRestart(t *testing.T) {
	for _, c := range []struct {
		name    string
		pause   time.Duration
		traffic bool // while it is away
		first   int  // who sends first afterwards: 0 the one that stayed
	}{
		{"at once", 0, false, 0},
		{"at once, the returning one sends first", 0, false, 1},
		{"under traffic", 2 * time.Second, true, 0},
		{"after 10 s", 10 * time.Second, false, 1},
		{"after a minute under traffic", time.Minute, true, 0},
		{"after 10 minutes", 10 * time.Minute, false, 0},
	} {
		for _, hard := range []bool{true, false} {
			for victim := range 3 {
				t.Run(fmt.Sprintf("%s/hard=%v/%d", c.name, hard, victim), func(t *testing.T) {
					t.Parallel()
					inWorld(t, 1, func(t *testing.T, w *world) {
						nodes := w.mesh(3)
						v, other := nodes[victim], nodes[(victim+1)%3]
						before := v.status().Self
						reaches(t, other, v, 5*time.Second)
						if hard {
							v.kill()
						} else if err := v.stop(); err != nil {
							t.Fatal(err)
						}
						for began := time.Now(); c.traffic && time.Since(began) < c.pause; {
							other.host.segment().Inject(l2test.Frame(macOf(t, before.MAC), other.mac(), 9, 100))
							time.Sleep(100 * time.Millisecond)
						}
						if !c.traffic {
							time.Sleep(c.pause)
						}
						v = w.restart(v)
						v.waitReady(time.Second)
						pair := [2]*node{other, v}
						from, to := pair[c.first], pair[1-c.first]
						t.Logf("back after %v, %v", reaches(t, from, to, 5*time.Second), reaches(t, to, from, 5*time.Second))
						after := v.status().Self
						if after.MAC != before.MAC || !slices.Equal(after.Addresses, before.Addresses) || after.ID != before.ID {
							t.Errorf("it was %+v and is %+v", before, after)
						}
						for _, n := range []*node{nodes[(victim+1)%3], nodes[(victim+2)%3]} {
							n.becomes(v.name, 20*time.Second, api.StateDirect, api.StateIdle)
							if got := len(n.status().Peers); got != 2 {
								t.Errorf("%s knows %d members, want 2", n.name, got)
							}
						}
					})
				})
			}
		}
	}
}

func TestPartition(t *testing.T) {
	for _, d := range []time.Duration{30 * time.Second, 10 * time.Minute, time.Hour} {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			inWorld(t, 1, func(t *testing.T, w *world) {
				nodes := w.mesh(4)
				heal := w.net.Partition(
					[]*udptest.Host{nodes[0].host.machine, nodes[1].host.machine},
					[]*udptest.Host{nodes[2].host.machine, nodes[3].host.machine},
				)
				time.Sleep(d / 2)
				// Somebody joins meanwhile: the others have never heard of it.
				late := w.up(w.host("198.18.7.7"), "late", nodes[0].invite(1))
				rest := w.net.Partition(
					[]*udptest.Host{late.host.machine},
					[]*udptest.Host{nodes[2].host.machine, nodes[3].host.machine},
				)
				late.waitReady(5 * time.Second)
				time.Sleep(d / 2)
				reaches(t, nodes[2], nodes[3], 5*time.Second)
				if st := nodes[2].peer("n0").State; st != api.StateOffline {
					t.Errorf("a member beyond the cut is %s, want offline", st)
				}
				heal()
				rest()
				healed := time.Now()
				drainAll(nodes...)
				reaches(t, nodes[2], nodes[0], 30*time.Second)
				reaches(t, nodes[1], nodes[3], 30*time.Second-time.Since(healed))
				for _, n := range append(nodes, late) {
					n.wait(api.WaitSpec{Peers: 4}, 60*time.Second-time.Since(healed))
				}
				t.Logf("all know all after %v", time.Since(healed))
				reaches(t, late, nodes[3], 5*time.Second)
			})
		})
	}
}

// drainAll throws away what has arrived.
func drainAll(nodes ...*node) {
	for _, n := range nodes {
		for n.take(time.Millisecond) != nil {
		}
	}
}

// The founder is away for hours; the others go on, with new sessions and rekeys.
func TestFounderGone(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = 8
		nodes := w.mesh(3)
		nodes[0].kill()
		reaches(t, nodes[1], nodes[2], 5*time.Second)
		for range 6 {
			time.Sleep(20 * time.Minute)
			drainAll(nodes[1], nodes[2])
			if took := reaches(t, nodes[1], nodes[2], 5*time.Second); took > time.Second {
				t.Errorf("%v until a frame arrived", took)
			}
			reaches(t, nodes[2], nodes[1], time.Second)
		}
		if st := nodes[1].peer("n0").State; st != api.StateOffline {
			t.Errorf("the founder is %s, want offline", st)
		}
		nodes[1].kill()
		nodes[1] = w.restart(nodes[1])
		nodes[1].waitReady(5 * time.Second)
		reaches(t, nodes[1], nodes[2], 5*time.Second)
		nodes[0] = w.restart(nodes[0])
		nodes[0].waitReady(5 * time.Second)
		reaches(t, nodes[0], nodes[2], 5*time.Second)
		reaches(t, nodes[1], nodes[0], 5*time.Second)
	})
}

// Certificates have expired while all were off: the mesh lives, with a warning.
func TestExpiredCertificates(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		nodes := w.mesh(3)
		for _, n := range nodes {
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(200 * 24 * time.Hour)
		for _, i := range []int{1, 2} { // no signer is there
			nodes[i] = w.restart(nodes[i])
			nodes[i].waitReady(5 * time.Second)
		}
		reaches(t, nodes[1], nodes[2], 5*time.Second)
		reaches(t, nodes[2], nodes[1], 5*time.Second)
		warned := slices.ContainsFunc(nodes[1].status().Health, func(h api.Health) bool {
			return h.Code == "certificate-expired" && h.Severity == api.SeverityWarning && h.Remedy != ""
		})
		if !warned {
			t.Errorf("health: %+v, want a warning about the certificate", nodes[1].status().Health)
		}
	})
}

// damage overwrites the middle of every generation of a state file.
func damage(t *testing.T, state, name string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(state, name+".*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no file %s in %s: %v", name, state, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		copy(b[len(b)/2:], "damage")
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedState(t *testing.T) {
	for _, c := range []struct {
		file  string
		fatal bool
	}{{"membership", true}, {"identity", true}, {"members", false}} {
		t.Run(c.file, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				nodes := w.mesh(2)
				time.Sleep(5 * time.Second)
				id := nodes[0].status().Network.ID
				b := nodes[1]
				b.kill()
				damage(t, b.state, c.file)
				b = w.restart(b, "198.18.0.1")
				if c.fatal {
					err := b.failure(time.Second)
					if err == nil || !strings.Contains(err.Error(), c.file) || !strings.Contains(err.Error(), b.state) {
						t.Errorf("it ended with %v, want an error that names the file", err)
					}
					// It stays so: nothing is founded over it, joined over it or thrown away.
					again := w.restart(b)
					if second := again.failure(time.Second); second == nil || second.Error() != err.Error() {
						t.Errorf("then it ended with %v", second)
					}
					return
				}
				b.waitReady(joinLimit)
				if b.status().Network.ID != id {
					t.Error("it is in another network")
				}
				if !slices.ContainsFunc(b.events, func(e mesh.Event) bool { return strings.Contains(e.Text, "cache") }) {
					t.Errorf("no warning about the cache in %+v", b.events)
				}
				reaches(t, b, nodes[0], 5*time.Second)
			})
		})
	}
}

func TestStateInUse(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "a")
		a.waitReady(5 * time.Second)
		second := w.upIn(w.host("198.18.0.2"), "a", a.state)
		if err := second.failure(time.Second); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a second node on one state directory ended with %v", err)
		}
	})
}

// states: a member killed is offline within half a minute and not before a
// restart could have been; one that said goodbye at once.
func TestStatesOfMembers(t *testing.T) {
	for _, size := range []int{3, 12} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			inWorld(t, 1, func(t *testing.T, w *world) {
				w.level = 8
				nodes := w.mesh(size)
				time.Sleep(time.Minute)
				for _, n := range nodes {
					for _, p := range n.status().Peers {
						if !p.State.Alive() {
							t.Errorf("%s sees %s as %s", n.name, p.Name, p.State)
						}
					}
				}
				v := nodes[1]
				v.kill()
				rest := append(slices.Clone(nodes[:1]), nodes[2:]...)
				time.Sleep(5 * time.Second)
				for _, n := range rest {
					if st := n.peer(v.name).State; st == api.StateOffline {
						t.Errorf("%s sees a member as offline 5 s after it was killed", n.name)
					}
				}
				began := time.Now()
				for _, n := range rest {
					n.becomes(v.name, 30*time.Second-time.Since(began), api.StateOffline)
				}
				t.Logf("offline everywhere %v after the kill", 5*time.Second+time.Since(began))
				time.Sleep(3 * time.Minute)
				for _, n := range rest {
					if st := n.peer(v.name).State; st != api.StateOffline {
						t.Errorf("%s sees a dead member as %s", n.name, st)
					}
				}
				v = w.restart(v)
				v.waitReady(5 * time.Second)
				began = time.Now()
				for _, n := range rest {
					n.becomes(v.name, 20*time.Second-time.Since(began), api.StateIdle, api.StateDirect)
				}
				t.Logf("back everywhere after %v", time.Since(began))
				time.Sleep(30 * time.Second)
				if err := v.stop(); err != nil {
					t.Fatal(err)
				}
				limit := time.Second
				if size > 8 { // not all have a session with it
					limit = 30 * time.Second
				}
				began = time.Now()
				for _, n := range rest {
					n.becomes(v.name, limit-time.Since(began), api.StateOffline)
				}
				t.Logf("offline everywhere %v after the goodbye", time.Since(began))
				time.Sleep(time.Second)
				for _, n := range rest {
					if st := n.peer(v.name).State; st != api.StateOffline {
						t.Errorf("%s sees a member that said goodbye as %s", n.name, st)
					}
				}
				v = w.restart(v)
				v.waitReady(5 * time.Second)
				began = time.Now()
				for _, n := range rest {
					n.becomes(v.name, 20*time.Second-time.Since(began), api.StateIdle, api.StateDirect)
				}
				t.Logf("back everywhere %v after the goodbye", time.Since(began))
			})
		})
	}
}

// What an idle node sends, and what it spends on one that is dead.
func TestDeadMemberIsCheap(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = 8
		nodes := w.mesh(3)
		nodes[2].kill()
		dead := nodes[2].host.machine.Addrs()[0]
		time.Sleep(2 * time.Minute)
		meter := w.meter(func(d udptest.Datagram) bool { return d.Dst.Addr() == dead })
		time.Sleep(10 * time.Minute)
		packets, bytes := meter()
		perMinute := float64(packets) / 10 / 2
		t.Logf("%.1f packets, %d bytes a minute from each member to a dead one", perMinute, bytes/20)
		if perMinute > 6 {
			t.Errorf("%.1f packets a minute go to an address that does not answer, want 6 at most", perMinute)
		}
	})
}

// Hosts of the segment: our own, the members', those behind their bridges.
func TestHosts(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		nodes := w.mesh(2)
		reaches(t, nodes[1], nodes[0], 5*time.Second)
		hosts, err := nodes[0].ask().Hosts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{nodes[0].mac().String(): "n0 own", nodes[1].mac().String(): "n1 record"}
		for _, h := range hosts {
			if got := h.Member + " " + h.Source; want[h.MAC] != got || len(h.Addresses) == 0 {
				t.Errorf("%s is %q with %v, want %q", h.MAC, got, h.Addresses, want[h.MAC])
			}
			delete(want, h.MAC)
		}
		if len(want) != 0 {
			t.Errorf("not among the hosts: %v", want)
		}
	})
}
