package l2

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// model is the slow and obvious switch: plain maps, walked for every question.
type model struct {
	now     time.Duration
	members []*modelMember // in the order of connecting; the first is the host itself, named ""
	learned map[modelKey]*modelHost
}

type modelKey struct {
	vlan uint16
	mac  MAC
}

type modelHost struct {
	at   *modelMember
	seen time.Duration
	here time.Duration // when it was last heard at the host, where it is not
}

type modelMember struct {
	name   string
	allow  Allow
	limit  int
	events []time.Duration // BUM frames that passed
	here   time.Duration   // when a frame of its own was last heard at the host
}

func (m *model) owner(mac MAC) *modelMember {
	for _, member := range m.members {
		if member.allow.MAC == mac && mac != (MAC{}) {
			return member
		}
	}
	return nil
}

func (m *model) find(vlan uint16, mac MAC) *modelMember {
	if o := m.owner(mac); o != nil {
		return o
	}
	if h := m.learned[modelKey{vlan, mac}]; h != nil && m.now-h.seen < DefaultAge {
		return h.at
	}
	return nil
}

func (m *model) behind(member *modelMember) (n int) {
	for _, h := range m.learned {
		if h.at == member && m.now-h.seen < DefaultAge {
			n++
		}
	}
	return n
}

// mayFlood is the definition of the limit: in no span of time that ends now do more
// BUM frames pass than the burst and what the rate gives.
func (m *model) mayFlood(member *modelMember) bool {
	for i, start := range member.events {
		allowed := modelBurst + float64(m.now-start)/1e9*modelRate
		if float64(len(member.events)-i+1) > allowed+1e-9 {
			return false
		}
	}
	return true
}

const modelRate, modelBurst = 1, 3

// send is rig.send.
func (m *model) send(from string, f modelFrame) string {
	member := m.members[slices.IndexFunc(m.members, func(x *modelMember) bool { return x.name == from })]
	allowed := func(x *modelMember, vlan uint16) bool {
		return x.allow.VLANs == nil || vlan == 0 || slices.Contains(x.allow.VLANs, vlan)
	}
	if strings.HasPrefix(f.dst.String(), "01:80:c2:00:00:0") {
		return "!reserved-multicast"
	}
	if f.src.Multicast() {
		return "!source-multicast"
	}
	if f.src == (MAC{}) {
		return "!source-zero"
	}
	if !allowed(member, f.vlan) {
		return "!vlan"
	}
	if o := m.owner(f.src); o != nil && o != member {
		if from == "" {
			o.here = m.now
		}
		return "!source-mac"
	} else if o == nil {
		key := modelKey{f.vlan, f.src}
		known := m.find(f.vlan, f.src)
		if known != nil && known != member {
			if h := m.learned[key]; h != nil && from == "" {
				h.here = m.now
			}
			return "!source-moved"
		}
		if known == nil && m.behind(member) >= member.limit {
			return "!source-limit"
		}
		if known == nil {
			m.learned[key] = &modelHost{member, m.now, -time.Hour}
		}
		m.learned[key].seen = m.now
	}
	to := []*modelMember{m.find(f.vlan, f.dst)}
	unknown := to[0] == nil && !f.dst.Multicast()
	if to[0] == member || from != "" && to[0] != nil && to[0].name != "" {
		return "!elsewhere"
	}
	if to[0] == nil || f.dst.Multicast() {
		if h := m.learned[modelKey{f.vlan, f.src}]; from != "" && h != nil && m.now-h.here < loopHold {
			return "!loop"
		}
		if from != "" && m.owner(f.src) != nil && m.now-member.here < loopHold {
			return "!loop"
		}
		if !m.mayFlood(member) {
			return "!storm"
		}
		member.events = append(member.events, m.now)
		to = m.members[:1]
		if from == "" {
			to = m.members[1:]
		}
	} else if from == "" && !allowed(to[0], f.vlan) {
		return "!vlan"
	}
	var names []string
	for _, x := range to {
		if from != "" {
			return "host"
		}
		if allowed(x, f.vlan) && (!unknown || x.allow.Hosts) {
			names = append(names, x.name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

type modelFrame struct {
	dst, src MAC
	vlan     uint16
}

func TestAgainstModel(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 2))
		r := newRig(t, Config{StormRate: modelRate, StormBurst: modelBurst, MaxMACs: 3})
		start := r.time
		m := &model{learned: map[modelKey]*modelHost{}, members: []*modelMember{{allow: Allow{MAC: ownMAC}, limit: 3}}}
		macs := []MAC{ownMAC, macOfA, macOfB, host1, host2, host3, {2, 0, 0, 0, 1, 4}, {2, 0, 0, 0, 1, 5}, broadcast, {}, {1, 0x80, 0xc2, 0, 0, 2}, {0x33, 0x33, 0, 0, 0, 1}}
		var log []string
		for range 400 {
			// Steps are whole seconds, so that floating point in the model is exact and each may sweep.
			r.time = r.time.Add([]time.Duration{sweepEvery, 30 * time.Second, DefaultAge - 30*time.Second, DefaultAge, 40: 0}[rng.IntN(41)])
			m.now = r.time.Sub(start)
			if rng.IntN(12) == 0 {
				log = append(log, change(rng, r, m))
				continue
			}
			f := modelFrame{macs[rng.IntN(len(macs))], macs[rng.IntN(len(macs))], []uint16{0, 0, 5, 6}[rng.IntN(4)]}
			from := m.members[rng.IntN(len(m.members))].name
			want := m.send(from, f)
			got := r.send(from, eth(f.dst, f.src, f.vlan))
			log = append(log, fmt.Sprintf("%v %q: %s > %s in %d: %q", m.now, from, f.src, f.dst, f.vlan, got))
			if got != want {
				t.Fatalf("seed %d: got %q, the model says %q, after\n%s", seed, got, want, strings.Join(log[max(0, len(log)-25):], "\n"))
			}
			outcomes[want]++
		}
		checkHosts(t, r, m)
	}
	for _, drop := range []string{"!storm", "!source-limit", "!source-moved", "!source-mac", "!vlan", "!elsewhere", "!loop"} {
		if outcomes[drop] < 20 {
			t.Errorf("%s was tried only %d times: %v", drop, outcomes[drop], slices.Sorted(maps.Keys(outcomes)))
		}
	}
}

// change connects, reconnects or disconnects a remote.
func change(rng *rand.Rand, r *rig, m *model) string {
	name := string(rune('a' + rng.IntN(3)))
	at := slices.IndexFunc(m.members, func(x *modelMember) bool { return x.name == name })
	if at >= 0 && rng.IntN(3) == 0 {
		gone := m.members[at]
		m.members = slices.Delete(m.members, at, at+1)
		maps.DeleteFunc(m.learned, func(_ modelKey, h *modelHost) bool { return h.at == gone })
		r.disconnect(name)
		return "disconnect " + name
	}
	// Each remote has one own address, as certificates have it; c has none.
	allow := Allow{MAC: map[string]MAC{"a": macOfA, "b": macOfB}[name], MaxMACs: 3, Hosts: rng.IntN(2) == 0, VLANs: [][]uint16{nil, nil, {5}}[rng.IntN(3)]}
	if at < 0 {
		m.members = append(m.members, &modelMember{name: name, here: -time.Hour})
		at = len(m.members) - 1
		maps.DeleteFunc(m.learned, func(k modelKey, _ *modelHost) bool { return k.mac == allow.MAC })
	}
	m.members[at].allow, m.members[at].limit = allow, 3
	r.connect(name, allow)
	return fmt.Sprintf("connect %s %+v", name, allow)
}

func checkHosts(t *testing.T, r *rig, m *model) {
	t.Helper()
	want := map[string]bool{}
	for _, member := range m.members {
		if member.allow.MAC != (MAC{}) {
			want[fmt.Sprint(0, member.allow.MAC, member.name)] = true
		}
	}
	for k, h := range m.learned {
		if m.now-h.seen < DefaultAge {
			want[fmt.Sprint(k.vlan, k.mac, h.at.name)] = true
		}
	}
	got := map[string]bool{}
	for _, h := range r.sw.Hosts() {
		got[fmt.Sprint(h.VLAN, h.MAC, h.Port)] = true
	}
	if !maps.Equal(got, want) {
		t.Fatalf("hosts %v, the model says %v", got, want)
	}
}

// Hostile frames: any bytes, cut into frames, from two remotes and the host.
func FuzzReceive(f *testing.F) {
	pack := func(frames ...[]byte) (out []byte) {
		for i, frame := range frames {
			out = append(out, byte(i))
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(frame))), frame...)
		}
		return out
	}
	f.Add(pack(eth(broadcast, macOfA, 0), eth(ownMAC, host1, 5), eth(host1, ownMAC, 5)))
	f.Add(pack(arp(snoopSrc, "10.0.0.1", 1), nil, eth(ownMAC, macOfB, 0)[:15]))
	f.Add([]byte{1, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newRig(t, Config{})
		r.connect("a", Allow{MAC: macOfA})
		r.connect("b", Allow{MAC: macOfB, Bridge: true, VLANs: []uint16{5}})
		for len(data) >= 3 {
			from, size := []string{"a", "b", ""}[data[0]%3], int(binary.BigEndian.Uint16(data[1:]))
			data = data[3:]
			frame := data[:min(size, len(data))]
			data = data[len(frame):]
			got := r.send(from, frame)
			if from != "" && got != "host" && !strings.HasPrefix(got, "!") {
				t.Fatalf("a frame from %s went to %q", from, got)
			}
		}
		if a := r.remotes["a"].stations; a > DefaultMaxMACs {
			t.Fatalf("a has %d stations", a)
		}
		if n := len(r.sw.heard.hosts); n > 2*(DefaultMaxMACs+neighborMore)+BridgeMaxMACs+neighborMore {
			t.Fatalf("%d neighbours", n)
		}
		for _, h := range r.sw.Hosts() {
			if h.MAC.Multicast() || h.MAC == (MAC{}) || h.MAC == macOfA && h.Port != "a" || h.MAC == ownMAC && h.Port != "" {
				t.Fatalf("host %+v", h)
			}
		}
	})
}

// Hostile notices: whatever two remotes say in whatever order, nobody takes what is a
// member's, and nothing grows beyond its bounds.
func FuzzHear(f *testing.F) {
	f.Add([]byte{1, 0, 3, 0, 1, 1, 3, 9, 2, 1, 3, 200})
	f.Add([]byte{3, 1, 4, 1, 4, 0, 4, 1, 6, 1, 4, 1, 7, 0, 5, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := newRig(t, Config{})
		r.connect("a", Allow{MAC: macOfA})
		r.connect("b", Allow{MAC: macOfB, Bridge: true})
		r.send("", eth(broadcast, host1, 0))
		macs := []MAC{ownMAC, macOfA, macOfB, host1, host2, ownMAC.probe(), {}, broadcast}
		for ; len(ops) >= 4; ops = ops[4:] {
			name := []string{"a", "b"}[ops[1]%2]
			b := Binding{MAC: macs[ops[2]%8], Seq: uint32(ops[3]), IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, ops[3]}), linkLocal(macs[ops[3]%8])}}
			if ops[2] >= 128 {
				b.MAC[4] = ops[3] // another host
			}
			n := Notice{Step: Step(ops[0] % 10), Stamp: uint64(len(ops)), To: []string{"", "a", "b", "c"}[ops[1]>>6], Bindings: []Binding{b}}
			if ops[0] >= 200 {
				r.sw.SetBindings(name, n.Bindings)
			} else {
				r.sw.Hear(name, n)
			}
			r.time = r.time.Add(time.Duration(ops[0]) * 10 * time.Millisecond)
			r.sw.Advance()
			r.host.frames = nil // questions
		}
		for name, mac := range map[string]MAC{"a": macOfA, "b": macOfB, "": ownMAC} {
			if got := r.sw.locate(r.sw.view.Load(), 0, mac, r.sw.now()); got == nil || name != "" && got != &r.remotes[name].origin || name == "" && got != &r.sw.local {
				t.Fatalf("the member %q is at %+v", name, got)
			}
		}
		for _, h := range r.sw.Hosts() {
			if h.MAC.Multicast() || h.MAC == (MAC{}) || h.MAC == ownMAC.probe() {
				t.Fatalf("host %+v", h)
			}
			for _, ip := range h.IPs {
				if at := r.sw.view.Load().addrs.of(ip); at != nil && h.MAC != ownMAC && h.MAC != macOfA && h.MAC != macOfB {
					t.Fatalf("host %+v has a member's address", h)
				}
			}
		}
		w := r.sw.where
		if len(w.trials) > maxDisputes || len(w.suits) > maxDisputes || len(w.alarms) > maxDisputes || len(w.moves) > maxDisputes {
			t.Fatalf("%d trials, %d claims, %d alarms, %d moves", len(w.trials), len(w.suits), len(w.alarms), len(w.moves))
		}
	})
}
