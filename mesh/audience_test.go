//go:build unix

package mesh_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/l2/snoop"
	"meshd/peer/flood"
)

// swarm is many members as switches and the machines that pass copies on, with nothing but
// a delay between them: no signatures, no losses.
type swarm struct {
	size    int
	members []*swarmed
}

// swarmed is one of them.
type swarmed struct {
	in     *swarm
	index  int
	id     keys.NodeID
	device *l2test.Device
	sw     *l2.Switch
	ports  []*l2.RemotePort // to the others, by index
	copies chan func(m *flood.Machine)
	sent   atomic.Int64 // frames and copies to others
}

const swarmDelay = 5 * time.Millisecond

// straight is the port from a member to another.
type straight struct{ from, to *swarmed }

func (straight) MaxFrame() int     { return 0 }
func (straight) Flush()            {}
func (straight) TakesCopies() bool { return true }
func (p straight) Send(frame []byte, _ int) bool {
	p.from.sent.Add(1)
	frame = append([]byte(nil), frame...)
	time.AfterFunc(swarmDelay, func() { p.to.receive(p.from.index, frame) })
	return true
}

// outward stands for all others.
type outward struct{ of *swarmed }

func (outward) MaxFrame() int { return 0 }
func (outward) Flush()        {}
func (p outward) Send(frame []byte, csumStart int) bool {
	if csumStart != 0 {
		return false
	}
	c := flood.Copy{Part: flood.Part{First: 1}, Frame: frame}
	c.Origin, c.Number = p.of.id, 1
	body := c.Append(nil)
	p.of.copies <- func(m *flood.Machine) {
		c := c
		c.Name, c.Frame = m.Next(), body[flood.HeaderLen:]
		p.of.pass(m.Begin(c.Name, c.Append(nil), time.Now()), c)
	}
	return true
}

// known is a member as another sees it.
type known struct{ by, of *swarmed }

func (k known) Node() keys.NodeID       { return k.of.id }
func (known) Reach() flood.Reach        { return flood.Direct }
func (known) Neighbour() bool           { return false }
func (known) Away() bool                { return false }
func (k known) Wants(frame []byte) bool { return k.by.ports[k.of.index].Wants(frame) }

func (m *swarmed) receive(origin int, frame []byte) {
	m.ports[origin].Receive(frame, 0)
	m.ports[origin].Flush()
}

// pass sends copies.
func (m *swarmed) pass(sends []flood.Send, c flood.Copy) {
	for _, s := range sends {
		c.Part = s.Part
		body, to := c.Append(nil), s.To.(known).of
		m.sent.Add(1)
		time.AfterFunc(swarmDelay, func() { to.copies <- func(machine *flood.Machine) { to.take(machine, m, body) } })
	}
}

// take is what becomes of a copy.
func (m *swarmed) take(machine *flood.Machine, from *swarmed, body []byte) {
	c, err := flood.Parse(body)
	if err != nil {
		panic(err)
	}
	if machine.Judge(from.id, &c, time.Now()) != flood.Verify {
		return
	}
	sends, v := machine.Accept(from.id, &c, body, time.Now())
	if v != flood.Fresh {
		return
	}
	m.pass(sends, c)
	m.receive(int(binary.BigEndian.Uint16(c.Origin[8:])), c.Frame)
}

func (m *swarmed) mac() l2.MAC { return l2.MAC{2, 0xee, 0, 0, byte(m.index >> 8), byte(m.index)} }

func newSwarm(t *testing.T, size int) *swarm {
	s := &swarm{size: size}
	for i := range size {
		m := &swarmed{in: s, index: i, device: l2test.NewDevice(fmt.Sprint("m", i)), copies: make(chan func(*flood.Machine), 1000)}
		binary.BigEndian.PutUint64(m.id[:], uint64(i)*0x9e3779b97f4a7c15) // spread over the circle
		binary.BigEndian.PutUint16(m.id[8:], uint16(i))
		m.sw = l2.NewSwitch(l2.Config{Device: m.device, MAC: m.mac(), Everyone: outward{m}})
		m.ports = make([]*l2.RemotePort, size)
		s.members = append(s.members, m)
	}
	s.allow(func(int) l2.Allow { return l2.Allow{} })
	for _, m := range s.members {
		go func() { _ = m.sw.Run(t.Context()) }()
		go func() {
			machine := flood.New(m.id, nil)
			machine.SetEpoch(1)
			for _, other := range s.members {
				machine.Join(known{m, other})
			}
			for {
				select {
				case <-t.Context().Done():
					return
				case do := <-m.copies:
					do(machine)
				}
			}
		}()
	}
	return s
}

// allow tells everybody what each may do and may have, and that each wants all groups.
func (s *swarm) allow(of func(i int) l2.Allow) {
	for _, a := range s.members {
		for _, b := range s.members {
			if a == b {
				continue
			}
			allow := of(b.index)
			allow.MAC = b.mac()
			a.ports[b.index] = a.sw.Connect(fmt.Sprint(b.index), straight{a, b}, allow)
			a.ports[b.index].SetGroups(nil)
		}
	}
}

// listen tells everybody that some listen to a group, and all others to none.
func (s *swarm) listen(group netip.Addr, listens func(i int) bool) {
	for _, a := range s.members {
		for i, port := range a.ports {
			set := &snoop.Set{VLANs: []uint16{0}}
			if listens(i) {
				set.Groups = []snoop.Group{{Addr: group}}
			}
			if port != nil {
				port.SetGroups(set)
			}
		}
	}
}

// toGroup is a UDP datagram to an IPv4 group.
func toGroup(group netip.Addr, src l2.MAC) []byte {
	dst := snoop.MAC(group)
	b := append(append(append([]byte(nil), dst[:]...), src[:]...), 8, 0)
	b = append(b, 0x45, 0, 0, 46, 0, 0, 0, 0, 4, 17, 0, 0, 10, 0, 0, 1)
	b = append(append(b, group.AsSlice()...), 0x12, 0x34, 0x13, 0x8c, 0, 26, 0, 0)
	return append(b, make([]byte, 18)...)
}

// No frame costs any of 200 members more than eight copies, and all that it is for get it once.
func TestAudiences(t *testing.T) {
	const size = 200
	group := netip.MustParseAddr("239.1.2.3")
	unknown := l2.MAC{2, 0x77, 0, 0, 0, 9}
	half := func(i int) bool { return i%2 == 1 }
	tenth := func(i int) bool { return i%10 == 3 }
	few := func(i int) bool { return i%25 == 3 }
	all := func(int) bool { return true }
	hosts := func(i int) l2.Allow { return l2.Allow{Hosts: half(i)} }
	vlans := func(i int) l2.Allow {
		if i == 77 {
			return l2.Allow{VLANs: []uint16{9}}
		}
		return l2.Allow{}
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, size)
		from := s.members[0]
		asks := arpFor(from.mac(), "10.66.0.5", "10.66.0.99") // nobody can answer it
		for _, tt := range []struct {
			name  string
			allow func(i int) l2.Allow // nil: as in the case before
			hears func(i int) bool     // the group; nil: nothing is known
			frame []byte
			to    func(i int) bool // who is to get it
			more  bool             // others may get it
		}{
			{name: "broadcast", frame: l2test.Frame(broadcast, from.mac(), 1, 60), to: all},
			{name: "a group of which nobody has told", frame: toGroup(group, from.mac()), to: all},
			{name: "a group with 100 listeners", hears: half, frame: toGroup(group, from.mac()), to: half},
			{name: "a group with 20 listeners", hears: tenth, frame: toGroup(group, from.mac()), to: tenth},
			{name: "a group with 8 listeners", hears: few, frame: toGroup(group, from.mac()), to: few},
			{name: "unknown unicast", allow: hosts, frame: l2test.Frame(unknown, from.mac(), 1, 60), to: half},
			{name: "a question that nobody can answer", frame: asks, to: half, more: true},
			{name: "the same again", frame: asks, to: all},
			{
				name: "a VLAN that one may not use", allow: vlans, to: func(i int) bool { return i != 77 },
				frame: l2test.Tagged(l2test.Frame(broadcast, from.mac(), 1, 60), 0x8100, 7),
			},
		} {
			if tt.allow != nil {
				s.allow(tt.allow)
			}
			if tt.hears != nil {
				s.listen(group, tt.hears)
			}
			from.device.Inject(tt.frame)
			time.Sleep(time.Second)
			synctest.Wait()
			total, most := int64(0), int64(0)
			for i, m := range s.members {
				sent := m.sent.Swap(0)
				total, most = total+sent, max(most, sent)
				got := len(m.device.Frames())
				for range got {
					<-m.device.Frames()
				}
				switch wanted := i != 0 && tt.to(i); {
				case wanted && got != 1, got > 1, got == 1 && !wanted && !tt.more:
					t.Errorf("%s: %d got it %d times", tt.name, i, got)
				}
			}
			t.Logf("%s: %d copies, at most %d by one", tt.name, total, most)
			if most > flood.Fanout || total == 0 {
				t.Errorf("%s: %d copies, %d by one", tt.name, total, most)
			}
		}
	})
}
