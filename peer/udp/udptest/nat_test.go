package udptest

import (
	"net/netip"
	"testing"
	"time"
)

// TestNATBehaviours tries every mapping with every filtering, as RFC 5780 does:
// from two addresses and two ports.
func TestNATBehaviours(t *testing.T) {
	for _, mapping := range []Behaviour{EndpointIndependent, AddressDependent, AddressAndPortDependent} {
		for _, filtering := range []Behaviour{EndpointIndependent, AddressDependent, AddressAndPortDependent} {
			t.Run(mapping.String()+", filtering "+filtering.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T, n *Internet) {
					nat := n.NAT(NATConfig{Mapping: mapping, Filtering: filtering}, addr("203.0.113.1"))
					in := newNode(t, nat, 7, "192.168.0.2")
					s := n.Host(addr("198.18.0.1"))
					s1, s2 := open(t, s, 1), open(t, s, 2)
					other := newNode(t, n, 1, "198.18.0.2")

					seen := func(by *node) netip.AddrPort { in.send(by.at(), "x"); return by.wants("x") }
					first := seen(s1)
					if first.Addr() != addr("203.0.113.1") || first == in.at() {
						t.Fatalf("seen as %v", first)
					}
					passes := func(from *node, want bool) {
						t.Helper()
						from.send(first, "y")
						if want {
							in.wants("y")
						} else {
							in.wantsNothing()
						}
					}
					passes(s1, true)
					passes(s2, filtering != AddressAndPortDependent)
					passes(other, filtering == EndpointIndependent)

					if again := seen(s1); again != first {
						t.Errorf("the mapping changed from %v to %v", first, again)
					}
					if same := seen(s2) == first; same != (mapping != AddressAndPortDependent) {
						t.Errorf("another port sees the same: %v", same)
					}
					if same := seen(other) == first; same != (mapping == EndpointIndependent) {
						t.Errorf("another address sees the same: %v", same)
					}
				})
			})
		}
	}
}

func TestNATTimeout(t *testing.T) {
	for _, refresh := range []bool{false, true} {
		inBubble(t, func(t *testing.T, n *Internet) {
			nat := n.NAT(NATConfig{Timeout: 30 * time.Second, InboundRefresh: refresh}, addr("203.0.113.1"))
			in, out := newNode(t, nat, 7, "192.168.0.2"), newNode(t, n, 1, "198.18.0.1")
			in.send(out.at(), "x")
			first := out.wants("x")
			for range 3 { // kept by what goes out
				time.Sleep(29 * time.Second)
				in.send(out.at(), "x")
				if from := out.wants("x"); from != first {
					t.Fatalf("the mapping changed from %v to %v", first, from)
				}
			}
			time.Sleep(20 * time.Second)
			out.send(first, "in time")
			in.wants("in time")
			time.Sleep(20 * time.Second)
			out.send(first, "too late?")
			if refresh {
				in.wants("too late?")
			} else {
				in.wantsNothing()
			}
			time.Sleep(time.Minute)
			out.send(first, "too late")
			in.wantsNothing()
			in.send(out.at(), "anew")
			if from := out.wants("anew"); from == first {
				t.Errorf("an expired mapping came back: %v", from)
			}
		})
	}
}

func TestNATPorts(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		nat := n.NAT(NATConfig{PreservePorts: true}, addr("203.0.113.1"))
		a, b := newNode(t, nat, 7, "192.168.0.2"), newNode(t, nat, 7, "192.168.0.3")
		out := newNode(t, n, 1, "198.18.0.1")
		seen := func(x *node) netip.AddrPort { x.send(out.at(), "x"); return out.wants("x") }
		before := seen(a)
		if before != endpoint("203.0.113.1:7") {
			t.Errorf("the port is not kept: %v", before)
		}
		if p := seen(b); p.Port() == 7 {
			t.Errorf("two hosts share %v", p)
		}
		nat.Rebind()
		out.send(before, "to the old mapping")
		a.wantsNothing()
		if after := seen(a); after == before {
			t.Errorf("the rebinding changed nothing: %v", after)
		}
		nat.SetAddr(addr("203.0.113.2"))
		if after := seen(a); after.Addr() != addr("203.0.113.2") {
			t.Errorf("seen as %v", after)
		}
	})
}

func TestNATHairpin(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		inBubble(t, func(t *testing.T, n *Internet) {
			nat := n.NAT(NATConfig{Hairpin: hairpin}, addr("203.0.113.1"))
			a, b := newNode(t, nat, 7, "192.168.0.2"), newNode(t, nat, 7, "192.168.0.3")
			out := newNode(t, n, 1, "198.18.0.1")
			a.send(out.at(), "x")
			outsideA := out.wants("x")
			b.send(outsideA, "round the corner")
			if !hairpin {
				a.wantsNothing()
			} else if from := a.wants("round the corner"); from.Addr() != addr("203.0.113.1") {
				t.Errorf("from %v, want the outside address (RFC 4787, REQ-9)", from)
			}
			b.send(a.at(), "straight")
			if from := a.wants("straight"); from != b.at() {
				t.Errorf("from %v", from)
			}
		})
	}
}

// TestNATNested: a home behind a carrier's NAT.
func TestNATNested(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		carrier := n.NAT(NATConfig{Filtering: AddressAndPortDependent}, addr("203.0.113.1"))
		home := carrier.NAT(NATConfig{Filtering: AddressAndPortDependent}, addr("100.64.0.2"))
		home.SetLink(Link{Delay: time.Millisecond}, Link{Delay: time.Millisecond})
		carrier.SetLink(Link{Delay: 2 * time.Millisecond}, Link{Delay: 2 * time.Millisecond})
		in, out := newNode(t, home, 7, "192.168.0.2"), newNode(t, n, 1, "198.18.0.1")
		begin := time.Now()
		in.send(out.at(), "x")
		from := out.wants("x")
		if from.Addr() != addr("203.0.113.1") {
			t.Errorf("from %v", from)
		}
		out.send(from, "y")
		in.wants("y")
		if d := time.Since(begin); d != 6*time.Millisecond {
			t.Errorf("there and back in %v, want 6 ms", d)
		}
	})
}

// TestNATIPv6: addresses stay as they are, and unasked packets stay outside.
func TestNATIPv6(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		carrier := n.NAT(NATConfig{}, addr("203.0.113.1"))
		home := carrier.NAT(NATConfig{Filtering: AddressAndPortDependent}, addr("100.64.0.2"))
		in, out := newNode(t, home, 7, "2001:db8::2"), newNode(t, n, 1, "2001:db8:1::1")
		out.send(in.at(), "unasked")
		in.wantsNothing()
		in.send(out.at(), "x")
		if from := out.wants("x"); from != in.at() {
			t.Errorf("translated to %v", from)
		}
		out.send(in.at(), "answer")
		in.wants("answer")
	})
}

// TestPunching: which pairs of NATs meet, when both sides send to what a third
// has seen, as with real NATs.
func TestPunching(t *testing.T) {
	cone := NATConfig{Mapping: EndpointIndependent, Filtering: EndpointIndependent}
	restricted := NATConfig{Mapping: EndpointIndependent, Filtering: AddressDependent}
	home := NATConfig{Mapping: EndpointIndependent, Filtering: AddressAndPortDependent}
	symmetric := NATConfig{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent}
	for _, c := range []struct {
		name string
		a, b NATConfig
		want bool
	}{
		{"home with home", home, home, true},
		{"full cone with symmetric", cone, symmetric, true},
		{"address-restricted with symmetric", restricted, symmetric, true},
		{"home with symmetric", home, symmetric, false},
		{"symmetric with symmetric", symmetric, symmetric, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *Internet) {
				third := newNode(t, n, 1, "198.18.0.1")
				a := newNode(t, n.NAT(c.a, addr("203.0.113.1")), 7, "192.168.0.2")
				b := newNode(t, n.NAT(c.b, addr("203.0.113.2")), 7, "192.168.0.2")
				seen := func(x *node) netip.AddrPort { x.send(third.at(), "x"); return third.wants("x") }
				seenA, seenB := seen(a), seen(b)
				for range 3 {
					a.send(seenB, "punch")
					b.send(seenA, "punch")
					time.Sleep(time.Second)
				}
				// Whoever was reached answers to where it came from.
				met := false
				for _, x := range []*node{a, b} {
					select {
					case m := <-x.got:
						met = true
						x.send(m.from, "answer")
					default:
					}
				}
				if met != c.want {
					t.Errorf("they met: %v", met)
				}
			})
		})
	}
}
