package gossip

import (
	"bytes"
	"compress/lzw"
	"maps"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"meshd/keys"
)

const (
	us = iota
	mallory
	alice
	bob
	stranger
)

// bench is a guard among us, mallory, alice and bob.
type bench struct {
	*guard
	ids   []keys.NodeID
	drops map[string]int
	now   time.Time
}

func newBench() *bench {
	b := &bench{drops: map[string]int{}, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	for i := range 5 {
		b.ids = append(b.ids, testID(i+1))
	}
	b.guard = &guard{
		network: keys.NetworkID{1}, table: newTable(b.ids[us]),
		reachable: func(keys.NodeID) bool { return false },
		drop:      func(reason string) { b.drops[reason]++ },
	}
	b.table.setMembers(b.ids[:stranger])
	return b
}

func (b *bench) name(i int) string { return b.ids[i].String() }

func (b *bench) addr(i int) []byte {
	a := syntheticAddr(b.ids[i])
	return a[:]
}

func (b *bench) alive(i int, incarnation uint32) message {
	return message{kind: kindAlive, incarnation: incarnation, node: b.name(i), addr: b.addr(i), port: port, versions: ownVersions()}
}

func (b *bench) suspect(i, from int, incarnation uint32) message {
	return message{kind: kindSuspect, incarnation: incarnation, node: b.name(i), from: b.name(from)}
}

func (b *bench) dead(i, from int, incarnation uint32) message {
	return message{kind: kindDead, incarnation: incarnation, node: b.name(i), from: b.name(from)}
}

func (b *bench) source(i int) source { return source{b.addr(i), port, b.name(i)} }

func (b *bench) ping(to, from int) message {
	return message{kind: kindPing, seq: 7, node: b.name(to), source: b.source(from)}
}

func (b *bench) errand(to, from int) message {
	return message{kind: kindIndirectPing, seq: 7, node: b.name(to), addr: b.addr(to), port: port, nack: true, source: b.source(from)}
}

func (b *bench) label(body []byte) []byte { return append(appendLabel(nil, b.network), body...) }

func (b *bench) packet(messages ...message) []byte {
	var parts [][]byte
	for i := range messages {
		parts = append(parts, messages[i].append(nil))
	}
	return b.label(joinParts(nil, parts))
}

// with returns m after a change.
func with(m message, change func(*message)) message {
	change(&m)
	return m
}

func TestGuardLetsHonestMessagesThrough(t *testing.T) {
	b := newBench()
	for name, m := range map[string]message{
		"ping":                     b.ping(us, mallory),
		"indirect ping":            b.errand(alice, mallory),
		"ack":                      {kind: kindAck, seq: 1},
		"nack":                     {kind: kindNack, seq: 1},
		"alive of itself":          b.alive(mallory, 1<<30),
		"alive of another":         b.alive(alice, 3),
		"suspicion of its own":     b.suspect(alice, mallory, 3),
		"suspicion passed on":      b.suspect(alice, bob, 3),
		"suspicion of ourselves":   b.suspect(us, mallory, 3),
		"a later memberlist's":     with(b.alive(mallory, 1<<30), func(m *message) { m.versions = []byte{1, 6, 2, 0, 0, 0} }),
		"restarted, long ago seen": b.suspect(us, mallory, 5000),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			out := b.admit(b.ids[mallory], b.packet(m), b.now)
			if want := m.append(nil); !bytes.Equal(out, want) || len(b.drops) > 0 {
				t.Errorf("admitted %q, want %q; drops %v", out, want, b.drops)
			}
		})
	}
}

// push/pull header of 2^20 nodes, as memberlist would read it from a stream.
func pushPull(t *testing.T) []byte {
	return encoded(t, 6, struct {
		Nodes        int
		UserStateLen int
		Join         bool
	}{1 << 20, 0, true})
}

func encoded(t *testing.T, kind byte, v any) []byte {
	t.Helper()
	buf := bytes.NewBuffer([]byte{kind})
	if err := codec.NewEncoder(buf, &codec.MsgpackHandle{}).Encode(v); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func bomb(t *testing.T) []byte {
	var packed bytes.Buffer
	w := lzw.NewWriter(&packed, lzw.LSB, 8)
	if _, err := w.Write(make([]byte, 500<<10)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return encoded(t, 9, struct {
		Algo uint8
		Buf  []byte
	}{0, packed.Bytes()[:min(packed.Len(), 900)]})
}

func TestGuardDropsHostilePackets(t *testing.T) {
	b := newBench()
	alive := b.alive(mallory, 2)
	nested := joinParts(nil, [][]byte{joinParts(nil, [][]byte{alive.append(nil), alive.append(nil)}), alive.append(nil)})
	many := []byte{kindCompound, 255}
	for range 255 {
		many = append(many, 0, 2)
	}
	for range 255 {
		many = append(many, kindNack, 0x80)
	}
	for name, c := range map[string]struct {
		packet []byte
		reason string
	}{
		"empty":                      {nil, dropLabel},
		"no label":                   {alive.append(nil), dropLabel},
		"another network's label":    {append(appendLabel(nil, keys.NetworkID{2}), alive.append(nil)...), dropLabel},
		"label only":                 {b.label(nil), dropMalformed},
		"push/pull header":           {b.label(pushPull(t)), dropMalformed},
		"user message":               {b.label([]byte{8, 1, 2, 3}), dropMalformed},
		"compression bomb":           {b.label(bomb(t)), dropMalformed},
		"encrypted":                  {b.label([]byte{10, 1, 2, 3}), dropMalformed},
		"checksum in front":          {b.label(append([]byte{12, 0, 0, 0, 0}, alive.append(nil)...)), dropMalformed},
		"error message":              {b.label([]byte{13, 0x80}), dropMalformed},
		"label twice":                {b.label(b.label(alive.append(nil))), dropMalformed},
		"nested compound":            {b.label(nested), dropMalformed},
		"255 parts":                  {b.label(many), dropMalformed},
		"compound without parts":     {b.label([]byte{kindCompound, 0}), dropMalformed},
		"compound with a bad part":   {b.label(joinParts(nil, [][]byte{alive.append(nil), {kindAlive, 0x80}})), dropMalformed},
		"bytes behind":               {append(b.packet(alive), 0), dropMalformed},
		"truncated":                  {b.packet(alive)[:60], dropMalformed},
		"too large":                  {append(b.packet(alive), make([]byte, MaxPacket)...), dropSize},
		"a field twice":              {b.label([]byte("\x03\x83\xa4Node\xa1a\xa4Node\xa1a\xa4From\xa1a")), dropMalformed},
		"a map of 2^32 pairs":        {b.label([]byte{kindAlive, 0xdf, 0xff, 0xff, 0xff, 0xff}), dropMalformed},
		"a string of 4 GiB":          {b.label([]byte("\x0b\x81\xdb\xff\xff\xff\xffSeqNo\x01")), dropMalformed},
		"a number of 64 bits":        {b.label([]byte("\x0b\x81\xa5SeqNo\xcf\xff\xff\xff\xff\xff\xff\xff\xff")), dropMalformed},
		"incarnation 2^32-1, of us":  {b.packet(b.suspect(us, mallory, ^uint32(0))), dropIncarnation},
		"incarnation 2^32-1, dead":   {b.packet(b.dead(alice, mallory, ^uint32(0))), dropIncarnation},
		"incarnation 2^32-1, alive":  {b.packet(b.alive(alice, ^uint32(0))), dropIncarnation},
		"incarnation 2^31, itself":   {b.packet(b.alive(mallory, 1<<31)), dropIncarnation},
		"incarnation jumps":          {b.packet(b.suspect(alice, mallory, incarnationFloor+incarnationStep+1)), dropIncarnation},
		"unknown name alive":         {b.packet(b.alive(stranger, 2)), dropUnknown},
		"unknown name suspected":     {b.packet(b.suspect(stranger, mallory, 2)), dropUnknown},
		"suspected by a stranger":    {b.packet(b.suspect(alice, stranger, 2)), dropUnknown},
		"long name":                  {b.packet(with(alive, func(m *message) { m.node = string(make([]byte, 300)) })), dropMalformed},
		"metadata":                   {b.packet(with(alive, func(m *message) { m.meta = []byte("x") })), dropMalformed},
		"64 KiB of metadata":         {b.packet(with(alive, func(m *message) { m.meta = make([]byte, 65000) })), dropSize},
		"versions missing":           {b.packet(with(alive, func(m *message) { m.versions = nil })), dropMalformed},
		"versions from the future":   {b.packet(with(alive, func(m *message) { m.versions = []byte{3, 9, 9, 0, 0, 0} })), dropMalformed},
		"alive at another address":   {b.packet(with(b.alive(alice, 2), func(m *message) { m.addr = b.addr(mallory) })), dropForged},
		"alive at another port":      {b.packet(with(b.alive(alice, 2), func(m *message) { m.port = 53 })), dropForged},
		"ping for another":           {b.packet(b.ping(alice, mallory)), dropUnknown},
		"ping answered to alice":     {b.packet(b.ping(us, alice)), dropForged},
		"ping answered elsewhere":    {b.packet(with(b.ping(us, mallory), func(m *message) { m.source.addr = []byte{192, 0, 2, 1} })), dropForged},
		"ping without source":        {b.packet(with(b.ping(us, mallory), func(m *message) { m.source = source{} })), dropForged},
		"errand to a stranger":       {b.packet(b.errand(stranger, mallory)), dropUnknown},
		"errand to an address":       {b.packet(with(b.errand(alice, mallory), func(m *message) { m.addr = []byte{192, 0, 2, 1} })), dropForged},
		"errand to a port":           {b.packet(with(b.errand(alice, mallory), func(m *message) { m.port = 53 })), dropForged},
		"errand answered to bob":     {b.packet(b.errand(alice, bob)), dropForged},
		"errand to ourselves":        {b.packet(b.errand(us, mallory)), dropUnknown},
		"errand back to itself":      {b.packet(b.errand(mallory, mallory)), dropUnknown},
		"ack with payload":           {b.packet(message{kind: kindAck, meta: []byte("x")}), dropMalformed},
		"suspicion of itself":        {b.packet(b.suspect(mallory, mallory, 2)), dropForged},
		"its death told by another":  {b.packet(b.dead(mallory, alice, 2)), dropForged},
		"somebody else's suspicion?": {b.packet(with(b.suspect(alice, bob, 2), func(m *message) { m.from = "" })), dropUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			out := b.admit(b.ids[mallory], c.packet, b.now)
			if out != nil || !maps.Equal(b.drops, map[string]int{c.reason: 1}) {
				t.Errorf("admitted %q, drops %v, want %s", out, b.drops, c.reason)
			}
		})
	}
	t.Run("from a stranger", func(t *testing.T) {
		b := newBench()
		if out := b.admit(b.ids[stranger], b.packet(alive), b.now); out != nil || b.drops[dropStranger] != 1 {
			t.Errorf("admitted %q, drops %v", out, b.drops)
		}
	})
	t.Run("from ourselves", func(t *testing.T) {
		b := newBench()
		if out := b.admit(b.ids[us], b.packet(alive), b.now); out != nil || b.drops[dropStranger] != 1 {
			t.Errorf("admitted %q, drops %v", out, b.drops)
		}
	})
}

func TestGuardWeakensDeaths(t *testing.T) {
	b := newBench()
	want := b.suspect(alice, mallory, 2)
	for name, m := range map[string]message{
		"dead":                      b.dead(alice, mallory, 2),
		"a goodbye at second hand":  b.dead(alice, alice, 2),
		"suspicion by the suspect?": b.suspect(alice, alice, 2),
	} {
		b := newBench()
		if out := b.admit(b.ids[mallory], b.packet(m), b.now); !bytes.Equal(out, want.append(nil)) {
			t.Errorf("%s became %q", name, out)
		}
	}
	t.Run("a goodbye at first hand", func(t *testing.T) {
		b := newBench()
		b.table.peers[b.name(mallory)].incarnation = 9
		want := b.dead(mallory, mallory, 9)
		if out := b.admit(b.ids[mallory], b.packet(b.dead(mallory, mallory, 2)), b.now); !bytes.Equal(out, want.append(nil)) {
			t.Errorf("became %q, drops %v", out, b.drops)
		}
	})
	t.Run("of one that has just been heard", func(t *testing.T) {
		b := newBench()
		b.admit(b.ids[alice], b.packet(message{kind: kindAck}), b.now)
		if out := b.admit(b.ids[mallory], b.packet(b.dead(alice, mallory, 2)), b.now.Add(5*time.Second)); out != nil || b.drops[dropContradicted] != 1 {
			t.Errorf("became %q, drops %v", out, b.drops)
		}
	})
	t.Run("of one with a session", func(t *testing.T) {
		b := newBench()
		b.reachable = func(id keys.NodeID) bool { return id == b.ids[alice] }
		if out := b.admit(b.ids[mallory], b.packet(b.dead(alice, mallory, 2)), b.now); out != nil || b.drops[dropContradicted] != 1 {
			t.Errorf("became %q, drops %v", out, b.drops)
		}
	})
}

func TestGuardBudgets(t *testing.T) {
	admitted := func(b *bench, n int, packet func(i int) []byte) (count int) {
		for i := range n {
			if b.admit(b.ids[mallory], packet(i), b.now) != nil {
				count++
			}
		}
		return count
	}
	t.Run("packets", func(t *testing.T) {
		b := newBench()
		if n := admitted(b, 1000, func(int) []byte { return b.packet(message{kind: kindAck}) }); n != packetBurst {
			t.Errorf("%d at once", n)
		}
		b.now = b.now.Add(time.Second)
		if n := admitted(b, 1000, func(int) []byte { return b.packet(message{kind: kindAck}) }); n != packetRate {
			t.Errorf("%d in a second", n)
		}
		if b.admit(b.ids[alice], b.packet(message{kind: kindAck}), b.now) == nil {
			t.Error("another member pays for it")
		}
	})
	t.Run("errands", func(t *testing.T) {
		b := newBench()
		if n := admitted(b, 90, func(int) []byte { return b.packet(b.errand(alice, mallory)) }); n != errandBurst {
			t.Errorf("%d at once", n)
		}
	})
	t.Run("accusations", func(t *testing.T) {
		b := newBench()
		count := 0
		for range 20 {
			var list []message
			for range 10 {
				list = append(list, b.suspect(alice, mallory, 2))
			}
			b.admit(b.ids[mallory], b.packet(list...), b.now)
			count += 10
		}
		if passed := count - b.drops[dropBudget]; passed != accusationBurst {
			t.Errorf("%d at once", passed)
		}
	})
	t.Run("incarnations", func(t *testing.T) {
		b := newBench()
		top := uint32(incarnationFloor)
		for range 100000 {
			b.now = b.now.Add(10 * time.Millisecond)
			if b.admit(b.ids[mallory], b.packet(b.suspect(us, mallory, top+incarnationStep)), b.now) != nil {
				top += incarnationStep
			}
		}
		if grown := top - incarnationFloor; grown > 1000+2*incarnationStep {
			t.Errorf("grew by %d in 1,000 s", grown)
		}
	})
}

// What memberlist itself writes must be what we write, byte for byte: the guard's decoder then knows all of it.
func TestMessagesAreMemberlists(t *testing.T) {
	b := newBench()
	m := b.alive(alice, 70000)
	if got := encoded(t, kindAlive, struct {
		Incarnation uint32
		Node        string
		Addr        []byte
		Port        uint16
		Meta        []byte
		Vsn         []uint8
	}{m.incarnation, m.node, m.addr, m.port, []byte{}, m.versions}); !bytes.Equal(got, m.append(nil)) {
		t.Errorf("alive\n%q\n%q", got, m.append(nil))
	}
	s := b.suspect(alice, bob, 200)
	if got := encoded(t, kindSuspect, struct {
		Incarnation uint32
		Node        string
		From        string
	}{s.incarnation, s.node, s.from}); !bytes.Equal(got, s.append(nil)) {
		t.Errorf("suspect\n%q\n%q", got, s.append(nil))
	}
	e := b.errand(alice, mallory)
	if got := encoded(t, kindIndirectPing, struct {
		SeqNo      uint32
		Target     []byte
		Port       uint16
		Node       string
		Nack       bool
		SourceAddr []byte
		SourcePort uint16
		SourceNode string
	}{e.seq, e.addr, e.port, e.node, e.nack, e.source.addr, e.source.port, e.source.node}); !bytes.Equal(got, e.append(nil)) {
		t.Errorf("indirect ping\n%q\n%q", got, e.append(nil))
	}
}

func TestFilter(t *testing.T) {
	b := newBench()
	b.table.self.incarnation = 5
	reachable := func(id keys.NodeID) bool { return id == b.ids[alice] }
	f := filter{b.table, reachable}
	to := b.table.peers[b.name(bob)]
	self := b.table.self.aliveMessage()
	ping := b.ping(bob, us)
	join := func(messages ...message) []byte {
		var parts [][]byte
		for i := range messages {
			parts = append(parts, messages[i].append(nil))
		}
		return joinParts(nil, parts)
	}
	for _, c := range []struct {
		name  string
		in    []byte
		after time.Duration
		want  []byte
	}{
		{"our own life comes along", join(ping), 0, join(ping, self)},
		{"but not with every packet", join(ping), time.Second, join(ping)},
		{"but again later", join(ping), 6 * time.Second, join(ping, self)},
		{"checksum goes", append([]byte{12, 1, 2, 3, 4}, join(ping)...), 6 * time.Second, join(ping)},
		{"what we fed stays here", join(b.alive(mallory, 1)), 6 * time.Second, nil},
		{"what others say of themselves goes on", join(b.alive(mallory, 2)), 6 * time.Second, join(b.alive(mallory, 2))},
		{"strangers stay here", join(b.dead(stranger, us, 2), ping), 6 * time.Second, join(ping)},
		{"a death that we know to be wrong stays here", join(b.dead(alice, us, 2), b.dead(mallory, us, 2)), 6 * time.Second, join(b.dead(mallory, us, 2))},
		{"a goodbye goes", join(b.dead(us, us, 5)), 60 * time.Second, join(b.dead(us, us, 5))},
	} {
		out, pings := f.pass(to, c.in, b.now.Add(c.after))
		var got []byte
		if len(out) > 0 && out[0].to == to {
			got = out[0].packet
		}
		if !bytes.Equal(got, c.want) || len(out) > 1 || len(pings) > 0 {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzGuard(f *testing.F) {
	b := newBench()
	for _, m := range []message{
		b.ping(us, mallory), b.errand(alice, mallory), b.alive(alice, 3), b.suspect(us, mallory, 3), b.dead(mallory, mallory, 3),
		{kind: kindAck, seq: 1},
		{kind: kindNack, seq: 1},
	} {
		f.Add(b.packet(m))
	}
	f.Add(b.packet(b.alive(alice, 3), b.suspect(alice, bob, 3), b.ping(us, mallory)))
	f.Fuzz(func(t *testing.T, packet []byte) {
		b := newBench()
		out := b.admit(b.ids[mallory], packet, b.now)
		if out == nil {
			return
		}
		// What is admitted is in the one form, says nothing that would be refused, and nothing new on a second look.
		parts, err := splitPacket(out)
		if err != nil {
			t.Fatal(err)
		}
		again := newBench()
		if second := again.admit(again.ids[mallory], again.label(out), again.now); !bytes.Equal(out, second) {
			t.Fatalf("%q became %q", out, second)
		}
		for _, p := range parts {
			m, err := parseMessage(p)
			if err != nil || m.incarnation > maxIncarnation || len(m.meta) > 0 {
				t.Fatalf("%q %v", p, err)
			}
		}
	})
}

// Of whom nobody has told that it lives is asked in time, whoever else has not said so: those with whom there is a session need
// not be asked.
func TestWhoIsAsked(t *testing.T) {
	now := time.Unix(1e9, 0)
	table := newTable(keys.NodeID{1})
	var ids []keys.NodeID
	for i := range byte(30) {
		ids = append(ids, keys.NodeID{2, i})
	}
	table.setMembers(ids)
	for _, p := range table.peers {
		p.joined, p.up = true, true
	}
	unknown := ids[7]
	reachable := func(id keys.NodeID) bool { return id != unknown }
	count := 0
	for end := now.Add(2 * time.Minute); now.Before(end); now = now.Add(planInterval) {
		for _, p := range table.asks(now, reachable) {
			if count++; p.id != unknown {
				t.Fatalf("asked %v", p.id)
			}
		}
		switch age := now.Sub(table.began); {
		case age < askInterval && count > 0:
			t.Fatal("asked before others could tell")
		case age == 30*time.Second && count != 7:
			t.Errorf("asked %d times in the first 30 s", count)
		}
	}
	if count < 20 || count > 25 {
		t.Errorf("asked %d times in two minutes", count)
	}
	table.peers[unknown.String()].confirmed = true
	if asked := table.asks(now.Add(time.Hour), reachable); asked != nil {
		t.Errorf("asked %v, of whom all is known", asked)
	}
}

// Whom we reach but have not heard of is asked at once, and until it has told its incarnation.
func TestWhoIsChecked(t *testing.T) {
	now := time.Unix(1e9, 0)
	table := newTable(keys.NodeID{1})
	met, stranger := keys.NodeID{2}, keys.NodeID{3}
	table.setMembers([]keys.NodeID{met, stranger})
	table.setNeighbours(nil)
	for _, p := range table.peers {
		p.joined, p.up = true, true
	}
	reachable := func(id keys.NodeID) bool { return id == met }
	for range 2 {
		if got := table.checks(now, reachable); len(got) != 1 || got[0].id != met {
			t.Fatalf("checked %v", got)
		}
		if again := table.checks(now.Add(checkEvery-1), reachable); again != nil {
			t.Fatalf("checked again at once: %v", again)
		}
		now = now.Add(checkEvery)
	}
	table.peers[met.String()].confirmed = true
	if got := table.checks(now, reachable); got != nil {
		t.Errorf("checked %v, of whom all is known", got)
	}
}
