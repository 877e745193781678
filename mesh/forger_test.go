//go:build unix

package mesh_test

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"meshd/keys"
	"meshd/keys/canon"
	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/l2/lanport"
	"meshd/mesh/api"
	"meshd/mesh/directory"
	"meshd/mesh/election"
	"meshd/mesh/record"
	"meshd/mesh/stations"
	"meshd/peer"
	"meshd/peer/flood"
)

// siege is a LAN that two members bridge, a member elsewhere, and a villain that may bridge
// and has sessions with all of them.
type siege struct {
	t         *testing.T
	home      *node
	forwarder *node
	blocked   *node
	lan       *wire
	villain   *villain
	at        []*peer.Remote // home, and the two
	segment   lanport.Segment
	number    uint32
	stamp     uint64
	routers   []api.PrefixRouter
}

const guestIP = "10.0.0.7"

// answers is the host of the LAN: it answers for its address.
func answers(frame []byte) []byte {
	if !isARPFor(frame, guest) && !(len(frame) >= 42 && frame[12] == 8 && frame[13] == 6 && frame[21] == 1 && netip.AddrFrom4([4]byte(frame[38:42])) == netip.MustParseAddr(guestIP)) {
		return nil
	}
	reply := append(append(slices.Clone(frame[6:12]), guest[:]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	reply = append(append(reply, guest[:]...), netip.MustParseAddr(guestIP).AsSlice()...)
	return append(append(reply, frame[22:32]...), make([]byte, 18)...)
}

// besiege makes it, in a world.
func besiege(t *testing.T, w *world) *siege {
	t.Helper()
	s := &siege{t: t, lan: &wire{host: answers}, stamp: 1 << 40}
	s.home = w.up(w.host("198.18.0.1"), "home")
	s.home.waitReady(5 * time.Second)
	invite, err := s.home.ask().Invite(t.Context(), api.InviteOptions{Uses: 3, Expires: time.Hour, Roles: []string{"bridge"}})
	if err != nil {
		t.Fatal(err)
	}
	hosts := []*lanHost{{host: w.host("198.18.0.2"), lan: s.lan}, {host: w.host("198.18.0.3"), lan: s.lan}}
	ctx, stop := context.WithCancel(t.Context())
	var carrying sync.WaitGroup
	t.Cleanup(func() { stop(); carrying.Wait() })
	carrying.Go(func() { s.lan.carry(ctx, hosts...) })
	s.forwarder = w.bridging(hosts[0], "one", t.TempDir()+"/one", invite)
	s.blocked = w.bridging(hosts[1], "two", t.TempDir()+"/two", invite)
	evil := w.up(w.host("198.18.0.66"), "evil", invite)
	for _, n := range []*node{s.forwarder, s.blocked, evil} {
		n.waitReady(10 * time.Second)
	}
	s.home.wait(api.WaitSpec{Peers: 3}, 10*time.Second)
	time.Sleep(10 * time.Second) // what is listened to there is known
	if s.blocked.bridgeIs("forwarding") {
		s.forwarder, s.blocked = s.blocked, s.forwarder
	}
	b := s.forwarder.status().Self.Bridge
	segment, err := hex.DecodeString(b.Segment)
	if err != nil || b.State != "forwarding" || len(segment) != len(s.segment) {
		t.Fatalf("%+v, %v", b, err)
	}
	copy(s.segment[:], segment)
	s.lan.send(arpFor(guest, guestIP, guestIP), nil, hosts...)
	s.home.waitStation(guest, s.forwarder.name, 2*time.Second)
	s.forwarder.igmp(0x16, film)
	s.villain = w.turn(evil)
	s.villain.watch = guest
	for _, addr := range []string{"198.18.0.1", "198.18.0.2", "198.18.0.3"} {
		s.at = append(s.at, s.villain.befriend(addr+":51830", peer.Member))
	}
	s.home.wait(api.WaitSpec{Peer: s.forwarder.name}, 5*time.Second)
	gateway, err := s.home.ask().Gateway(t.Context())
	if err != nil || len(gateway.Routers) == 0 || gateway.Routers[0].State != api.RouterActive {
		t.Fatalf("%+v, %v", gateway, err)
	}
	s.routers = gateway.Routers
	return s
}

// control sends a control message to all.
func (s *siege) control(kind byte, body []byte) {
	for _, r := range s.at {
		r.SendControl(append([]byte{kind}, body...))
	}
}

// notice sends a notice of stations.
func (s *siege) notice(step l2.Step, to keys.NodeID, b ...l2.Binding) {
	s.stamp++
	s.control(17, stations.Append(nil, stations.Message{Notice: l2.Notice{Step: step, Stamp: s.stamp, Bindings: b}, To: to}))
}

func (s *siege) network() keys.NetworkID { return s.villain.hello.Trust.NetworkID() }

// statement sends what the villain says of a LAN, in its own name or another's.
func (s *siege) statement(st lanport.Statement) {
	st.Counter = math.MaxUint64 - 1<<20 + s.stamp
	s.stamp++
	slices.SortFunc(st.Heard, func(a, b lanport.ID) int { return slices.Compare(a[:], b[:]) })
	text := st.Append(nil)
	network := s.network()
	signed := append(append([]byte("meshd/1/lanport\x00"), network[:]...), text...)
	s.control(19, append(text, ed25519.Sign(s.villain.identity.Sign, signed)...))
}

// record sends a record in another's name, with the villain's signature or that of
// something else.
func (s *siege) record(kind record.Type, owner keys.NodeID, raw []byte, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	var envelope struct {
		_         struct{} `cbor:",toarray"`
		Type      record.Type
		Payload   []byte
		Signature []byte
	}
	var payload struct {
		_       struct{} `cbor:",toarray"`
		Owner   [16]byte
		Epoch   uint32
		Counter uint32
		Body    []byte
	}
	if err := canon.Unmarshal(raw, &envelope); err != nil {
		s.t.Fatal(err)
	}
	if err := canon.Unmarshal(envelope.Payload, &payload); err != nil {
		s.t.Fatal(err)
	}
	payload.Owner = owner
	network := s.network()
	var forged [][]byte
	for _, sign := range []bool{true, false} {
		if envelope.Payload, err = canon.Marshal(payload); err != nil {
			s.t.Fatal(err)
		}
		if sign {
			text := append(append([]byte("meshd/1/"+kind.String()+"\x00"), network[:]...), envelope.Payload...)
			envelope.Signature = ed25519.Sign(s.villain.identity.Sign, text)
		}
		out, err := canon.Marshal(envelope)
		if err != nil {
			s.t.Fatal(err)
		}
		if r, err := record.Parse(out); err != nil || r.Key.Owner != owner {
			s.t.Fatalf("the forgery is no record: %v", err)
		}
		forged = append(forged, out)
	}
	for _, msg := range directory.Push(forged) {
		s.control(2, msg)
	}
}

// holds looks whether all is as it was.
func (s *siege) holds(when string) {
	s.t.Helper()
	if h := s.home.station(guest); h == nil || h.Member != s.forwarder.name {
		s.t.Errorf("%s: for home the host is at %+v", when, h)
	}
	if h := s.forwarder.station(guest); h == nil || h.Member != s.forwarder.name {
		s.t.Errorf("%s: for its member the host is at %+v", when, h)
	}
	for _, n := range []*node{s.forwarder, s.blocked} {
		want := map[*node]string{s.forwarder: "forwarding", s.blocked: "blocked"}[n]
		if b := n.status().Self.Bridge; b.State != want || b.Segment != fmt.Sprintf("%x", s.segment[:]) || b.Forwarder != s.forwarder.name {
			s.t.Errorf("%s: %s says %+v", when, n.name, b)
		}
	}
	for _, to := range []l2.MAC{guest, broadcast} {
		s.number++
		s.home.send(to, s.number)
		time.Sleep(100 * time.Millisecond)
		if n := s.lan.count(l2test.Frame(to, s.home.mac(), s.number, 100)); n != 1 {
			s.t.Errorf("%s: a frame to %v was on the LAN %d times", when, to, n)
		}
	}
	other := l2.MAC{2, 0x78, 0, 0, byte(s.number >> 8), byte(s.number)} // a host that is new behind home
	s.home.host.segment().Inject(l2test.Frame(broadcast, other, s.number, 100))
	s.forwarder.waitStation(other, "home", 500*time.Millisecond)
	if g, err := s.home.ask().Gateway(s.t.Context()); err != nil || !slices.Equal(g.Routers, s.routers) {
		s.t.Errorf("%s: routers %+v, %v, were %+v", when, g, err, s.routers)
	}
}

// TestForger has a member that may bridge say whatever it likes of others' stations, LANs,
// groups, routers and copies, to all and for ten seconds each: nothing of theirs is its.
func TestForger(t *testing.T) {
	for name, attack := range map[string]func(s *siege, i int){
		"stations, as its own": func(s *siege, i int) {
			for _, segment := range []l2.Segment{{}, l2.Segment(s.segment), {0xee}} {
				b := l2.Binding{MAC: guest, Seq: uint32(1000 + i), Segment: segment, IPs: []netip.Addr{netip.MustParseAddr(guestIP)}}
				s.notice(l2.StepHere, keys.NodeID{}, b)
			}
		},
		"stations, claimed and answered": func(s *siege, i int) {
			b := l2.Binding{MAC: guest, Seq: uint32(1000 + i), IPs: []netip.Addr{netip.MustParseAddr(guestIP)}}
			for step := l2.StepClaim; step <= l2.StepKeepAddress; step++ {
				s.notice(step, keys.NodeID{}, b)
			}
		},
		"stations, handed to others": func(s *siege, i int) {
			var made []l2.Binding
			for k := range l2.MaxInNotice {
				made = append(made, l2.Binding{MAC: l2.MAC{2, 0x66, 0, byte(k), byte(i >> 8), byte(i)}, Seq: 1, IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 100 + byte(k), byte(i >> 8), byte(i)})}})
			}
			s.notice(l2.StepHere, keys.NodeID{}, made...)
			s.notice(l2.StepGone, s.at[0].ID, made...)
			if i%50 == 0 {
				s.notice(l2.StepGone, s.villain.identity.ID(), l2.Binding{MAC: guest, Seq: uint32(1000 + i)})
			}
		},
		"the LAN": func(s *siege, i int) {
			own := lanport.ID(s.villain.identity.ID())
			one, two := lanport.ID(s.at[1].ID), lanport.ID(s.at[2].ID)
			heard := [][]lanport.ID{nil, {one}, {two}, {one, two}}[i%4]
			for _, st := range []lanport.Statement{
				{From: own, Segment: lanport.Segment{0xee}, State: lanport.State(1 + i%5), Forwarder: own, Heard: heard}, // it comes and goes: all is to be learned anew
				{From: own, Segment: s.segment, State: lanport.Blocked, Forwarder: one, Heard: heard},
				{From: own, Segment: s.segment, State: lanport.Blocked, Forwarder: two, Heard: heard},
				{From: one, Segment: s.segment, State: lanport.Blocked, Forwarder: own, Heard: []lanport.ID{own}}, // nobody believes that
				{From: two, Segment: s.segment, State: lanport.Blocked, Forwarder: own, Heard: []lanport.ID{own}},
				{From: own, Segment: s.segment, State: lanport.Forwarding, Fit: true, Forwarder: own, Heard: heard},
				{From: own, Segment: s.segment, State: lanport.Forwarding, Fit: true, Forwarder: own},
			} {
				s.statement(st)
			}
			time.Sleep(time.Millisecond)
			b := l2.Binding{MAC: guest, Seq: uint32(1000 + i), Segment: l2.Segment(s.segment)}
			s.notice(l2.StepHere, keys.NodeID{}, b)
		},
		"groups": func(s *siege, i int) {
			v := record.Version{Epoch: math.MaxUint32, Counter: uint32(i)}
			for _, of := range s.at {
				raw, err := record.SignGroups(s.villain.identity, s.network(), v, record.Groups{VLANs: []record.GroupsVLAN{{}}})
				s.record(record.TypeGroups, of.ID, raw, err)
				raw, err = record.SignStations(s.villain.identity, s.network(), v, record.Stations{})
				s.record(record.TypeStations, of.ID, raw, err)
			}
		},
		"routers": func(s *siege, _ int) {
			prefix := netip.PrefixFrom(s.home.status().Self.Addresses[0], 64).Masked()
			beat := election.Beat{Uplink: true, Active: []netip.Prefix{prefix}, Sought: []netip.Addr{s.home.status().Self.Addresses[0]}}
			s.control(20, beat.Append(nil))
		},
		"copies": func(s *siege, i int) {
			for _, step := range []flood.Step{flood.Have, flood.Want} {
				for _, of := range append(s.at, nil) {
					name := flood.Name{Origin: s.villain.identity.ID(), Epoch: math.MaxUint32, Number: uint64(1 + i)}
					if of != nil {
						name = flood.Name{Origin: of.ID, Epoch: uint32(i), Number: uint64(1 + i)}
					}
					body, _ := flood.Message{Step: step, Names: []flood.Name{name}}.Append(nil)
					s.control(21, body)
				}
			}
			for _, src := range []l2.MAC{guest, s.home.mac(), s.forwarder.mac()} { // signed, and it is its own
				s.villain.engine.Everyone().Send(l2test.Frame(broadcast, src, 1<<20+uint32(i), 100), 0)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				w.level = slog.LevelError
				s := besiege(t, w)
				s.holds("before")
				v := s.villain
				v.engine.StartFlooding(s.network(), math.MaxUint32)
				for _, r := range s.at {
					r.TakeCopies(true, 1)
				}
				rounds := 500 // in 10 s
				if testing.Short() {
					rounds = 100 // as for crowds
				}
				for i := range rounds {
					attack(s, i)
					time.Sleep(20 * time.Millisecond)
					if i%50 == 49 {
						s.holds(fmt.Sprint("after ", i+1))
					}
				}
				time.Sleep(15 * time.Second) // what is held back comes out
				s.holds("later")
				if n := v.watching(); n > 0 {
					t.Errorf("the villain got %d frames for the host", n)
				}
				for i, src := range []l2.MAC{l2.MAC(keys.MAC(v.identity.ID())), guest, s.home.mac(), s.forwarder.mac()} {
					copied := l2test.Frame(broadcast, src, 1<<24, 100)
					v.engine.Everyone().Send(copied, 0)
					time.Sleep(time.Second)
					if n := s.lan.count(copied); i == 0 && n != 1 || i > 0 && n != 0 {
						t.Errorf("a copy of a frame of %v was on the LAN %d times", src, n)
					}
				}
				frame := s.home.ipv4(film, 17, []byte{1, 2, 3, 4, 0, 12, 0, 0, 'f', 'i', 'l', 'm'})
				s.home.host.segment().Inject(frame)
				time.Sleep(time.Second)
				if n := s.lan.count(frame); n != 1 {
					t.Errorf("a group's frame was on the LAN %d times", n)
				}
			})
		})
	}
}
