package probe

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"meshd/keys"
)

const someHour = 500_000

func identity(t testing.TB) *keys.Identity {
	t.Helper()
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func pair(t testing.TB, own, remote *keys.Identity) *Pair {
	t.Helper()
	p, err := NewPair(own, remote.Public())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pairs(t testing.TB) (a, b *Pair) {
	t.Helper()
	i, j := identity(t), identity(t)
	return pair(t, i, j), pair(t, j, i)
}

func transaction() (id [12]byte) {
	copy(id[:], "transaction!")
	return id
}

func TestMessageExactBytes(t *testing.T) {
	txid := hex.EncodeToString([]byte("transaction!"))
	zeros := hex.EncodeToString(make([]byte, 16))
	for _, tt := range []struct {
		name string
		m    Message
		want string
	}{
		{"ping", Message{Kind: Ping, Transaction: transaction()}, "0100" + txid + "000000" + zeros + "00000000"},
		{
			"pong to IPv4",
			Message{Kind: Pong, Flags: 5, Transaction: transaction(), Observed: netip.MustParseAddrPort("198.18.0.1:51830"), Received: 0x01020304},
			"0205" + txid + "04ca76" + "c6120001" + zeros[:24] + "01020304",
		},
		{
			"pong to IPv6",
			Message{Kind: Pong, Transaction: transaction(), Observed: netip.MustParseAddrPort("[2001:db8::1]:1")},
			"0200" + txid + "060001" + "20010db8000000000000000000000001" + "00000000",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := appendMessage([]byte{0xee}, tt.m)
			if got := hex.EncodeToString(b); got != "ee"+tt.want {
				t.Fatalf("got  %s\nwant ee%s", got, tt.want)
			}
			m, err := parseMessage(append(b[1:], 0, 0, 0))
			if err != nil || m != tt.m {
				t.Errorf("parsed %+v, %v", m, err)
			}
		})
	}
}

func TestObservedIsNeverMapped(t *testing.T) {
	mapped := netip.MustParseAddrPort("[::ffff:192.0.2.1]:7")
	m, err := parseMessage(appendMessage(nil, Message{Kind: Pong, Observed: mapped}))
	if err != nil || m.Observed != netip.MustParseAddrPort("192.0.2.1:7") {
		t.Errorf("got %v, %v", m.Observed, err)
	}
	zone := netip.MustParseAddrPort("[fe80::1%eth0]:7")
	m, err = parseMessage(appendMessage(nil, Message{Kind: Pong, Observed: zone}))
	if err != nil || m.Observed != netip.MustParseAddrPort("[fe80::1]:7") {
		t.Errorf("got %v, %v", m.Observed, err)
	}
}

func TestMessageRefused(t *testing.T) {
	good := func(change func(b []byte)) []byte {
		b := appendMessage(nil, Message{Kind: Pong, Observed: netip.MustParseAddrPort("192.0.2.1:7")})
		change(b)
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"empty", nil},
		{"short", good(func([]byte) {})[:messageSz-1]},
		{"kind 0", good(func(b []byte) { b[0] = 0 })},
		{"kind 3", good(func(b []byte) { b[0] = 3 })},
		{"family 5", good(func(b []byte) { b[14] = 5 })},
		{"port without an address", good(func(b []byte) { b[14] = 0; clear(b[17:]) })},
		{"address without a family", good(func(b []byte) { b[14] = 0; clear(b[15:17]) })},
		{"IPv4 with more behind it", good(func(b []byte) { b[32] = 1 })},
		{"mapped", appendMappedByHand()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if m, err := parseMessage(tt.b); !errors.Is(err, ErrMessage) || m != (Message{}) {
				t.Errorf("got %+v, %v", m, err)
			}
		})
	}
}

func appendMappedByHand() []byte {
	b := appendMessage(nil, Message{Kind: Pong, Observed: netip.MustParseAddrPort("[2001:db8::1]:1")})
	mapped := netip.MustParseAddr("::ffff:192.0.2.1").As16()
	copy(b[17:], mapped[:])
	return b
}

func TestDatagramHeader(t *testing.T) {
	a, _ := pairs(t)
	b := a.Append([]byte{0xee}, Message{Kind: Ping}, someHour, 0)[1:]
	tag := a.OutTag(someHour)
	if want := append([]byte{0xd2, 1, 0, 0}, tag[:]...); !bytes.Equal(b[:12], want) {
		t.Errorf("header %x, want %x", b[:12], want)
	}
	if len(b) != MinSize || MinSize != 89 {
		t.Errorf("%d bytes", len(b))
	}
	if got, ok := Tag(b); !ok || got != tag {
		t.Errorf("Tag = %x, %v", got, ok)
	}
	if bytes.Equal(b, a.Append(nil, Message{Kind: Ping}, someHour, 0)) {
		t.Error("two probes are the same bytes")
	}
}

func TestRoundTrip(t *testing.T) {
	a, b := pairs(t)
	m := Message{Kind: Ping, Flags: 1, Transaction: transaction(), Observed: netip.MustParseAddrPort("[2001:db8::1]:1")}
	for _, size := range []int{-1, 0, 1, MinSize - 1, MinSize, MinSize + 1, 1232, 1472, 8972} {
		d := a.Append(nil, m, someHour, size)
		if len(d) != max(size, MinSize) {
			t.Errorf("asked for %d, got %d bytes", size, len(d))
		}
		got, err := b.Open(d)
		if err != nil || got != m {
			t.Errorf("size %d: %+v, %v", size, got, err)
		}
		back := b.Append(nil, Message{Kind: Pong, Transaction: m.Transaction, Observed: m.Observed}, someHour, 0)
		if len(back) > len(d) {
			t.Errorf("a pong of %d bytes to a ping of %d", len(back), len(d))
		}
		if got, err := a.Open(back); err != nil || got.Kind != Pong {
			t.Errorf("pong: %+v, %v", got, err)
		}
	}
}

// Nothing opens but what the remote sealed for this pair, bit for bit.
func TestOpenRefuses(t *testing.T) {
	i, j, k := identity(t), identity(t), identity(t)
	a, b := pair(t, i, j), pair(t, j, i)
	d := a.Append(nil, Message{Kind: Ping, Transaction: transaction()}, someHour, 100)
	if _, err := a.Open(d); !errors.Is(err, ErrOpen) {
		t.Errorf("reflected: %v", err)
	}
	for name, other := range map[string]*Pair{"own side of a third": pair(t, j, k), "a third": pair(t, k, i)} {
		if _, err := other.Open(d); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for bit := range len(d) * 8 {
		d[bit/8] ^= 1 << (bit % 8)
		if _, err := b.Open(d); err == nil {
			t.Fatalf("bit %d changed, opened", bit)
		}
		d[bit/8] ^= 1 << (bit % 8)
	}
	for n := range len(d) {
		if _, err := b.Open(d[:n]); err == nil {
			t.Fatalf("cut to %d bytes, opened", n)
		}
	}
	if _, err := b.Open(d); err != nil {
		t.Errorf("the original: %v", err)
	}
}

func TestTags(t *testing.T) {
	a, b := pairs(t)
	seen := map[[8]byte]bool{}
	for hour := uint32(someHour); hour < someHour+24; hour++ {
		if a.OutTag(hour) != b.InTag(hour) || b.OutTag(hour) != a.InTag(hour) {
			t.Fatal("the two sides differ")
		}
		seen[a.OutTag(hour)], seen[b.OutTag(hour)] = true, true
	}
	if len(seen) != 48 {
		t.Errorf("%d different tags, want 48", len(seen))
	}
}

func TestNewPairRefuses(t *testing.T) {
	own, remote := identity(t), identity(t)
	for _, tt := range []struct{ name, key string }{
		{"zero", "0000000000000000000000000000000000000000000000000000000000000000"},
		{"one", "0100000000000000000000000000000000000000000000000000000000000000"},
		{"order 8", "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"},
		{"order 8 too", "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"},
		{"p-1", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
		{"p", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.key)
			if err != nil {
				t.Fatal(err)
			}
			public := remote.Public()
			public.Probe = wgtypes.Key(b)
			if _, err := NewPair(own, public); err == nil {
				t.Error("accepted")
			}
		})
	}
	if _, err := NewPair(own, own.Public()); !errors.Is(err, ErrSelf) {
		t.Errorf("self: %v", err)
	}
}

func TestTableHours(t *testing.T) {
	i, j := identity(t), identity(t)
	mine, theirs := pair(t, i, j), pair(t, j, i)
	now := time.Unix(someHour*3600+1800, 0)
	for _, offset := range []int32{0, 1, -1, 87_600, -87_600} {
		var table Table[string]
		again := table.Update([]Entry[string]{{mine, offset, "j"}}, now)
		if want := time.Unix((someHour+1)*3600, 0); !again.Equal(want) {
			t.Errorf("again at %v, want %v", again, want)
		}
		for delta := -3; delta <= 3; delta++ {
			hour := uint32(int64(someHour) + int64(offset) + int64(delta))
			d := theirs.Append(nil, Message{Kind: Ping}, hour, 0)
			tag, _ := Tag(d)
			e, ok := table.Lookup(tag)
			if want := delta >= -1 && delta <= 1; ok != want || ok && (e.Value != "j" || e.Pair != mine) {
				t.Errorf("offset %d, hour %+d: found %v", offset, delta, ok)
			}
		}
	}
}

func TestTableUpdate(t *testing.T) {
	own := identity(t)
	var entries []Entry[int]
	var remotes []*Pair
	for n := range 50 {
		remote := identity(t)
		entries = append(entries, Entry[int]{Pair: pair(t, own, remote), Value: n})
		remotes = append(remotes, pair(t, remote, own))
	}
	var table Table[int]
	if _, ok := table.Lookup([8]byte{}); ok {
		t.Error("found something in an empty table")
	}
	now := time.Unix(someHour*3600, 0)
	table.Update(entries, now)
	table.Update(entries[:25], now.Add(time.Hour))
	for n, remote := range remotes {
		e, ok := table.Lookup(remote.OutTag(someHour + 2))
		if ok != (n < 25) || ok && e.Value != n {
			t.Errorf("remote %d: found %v %d", n, ok, e.Value)
		}
		if _, ok := table.Lookup(remote.OutTag(someHour - 1)); ok {
			t.Errorf("remote %d: found by a tag of two hours ago", n)
		}
	}
	if len(table.tags) != 3*25 {
		t.Errorf("%d tags kept", len(table.tags))
	}
}

// Entries that come and go one by one make the table that Update makes of all.
func TestTableAddRemove(t *testing.T) {
	own := identity(t)
	now := time.Unix(someHour*3600, 0)
	var entries []Entry[int]
	var remotes []*Pair
	for n := range 50 {
		remote := identity(t)
		entries = append(entries, Entry[int]{Pair: pair(t, own, remote), Value: n, Offset: int32(n%3 - 1)})
		remotes = append(remotes, pair(t, remote, own))
	}
	var table Table[int]
	table.Update(entries[:10], now)
	for _, e := range entries[10:] {
		table.Add(e)
	}
	before := table.snapshot.Load()
	for _, e := range entries[:20] {
		table.Remove(e)
	}
	for n, remote := range remotes {
		for delta := -2; delta <= 2; delta++ {
			tag := remote.OutTag(uint32(someHour + n%3 - 1 + delta))
			e, ok := table.Lookup(tag)
			if want := n >= 20 && delta >= -1 && delta <= 1; ok != want || ok && e.Value != n {
				t.Errorf("remote %d, hour %+d: found %v %d", n, delta, ok, e.Value)
			}
			if _, ok := before[tag[0]][tag]; ok != (delta >= -1 && delta <= 1) {
				t.Errorf("remote %d, hour %+d: a table that was read has changed", n, delta)
			}
		}
	}
	table.Update(entries[20:], now)
	if len(table.tags) != 3*30 {
		t.Errorf("%d tags kept", len(table.tags))
	}
}

func TestTableReadersBesideUpdate(t *testing.T) {
	i, j := identity(t), identity(t)
	entries := []Entry[int]{{Pair: pair(t, i, j), Value: 1}}
	tag := pair(t, j, i).OutTag(someHour)
	var table Table[int]
	table.Update(entries, time.Unix(someHour*3600, 0))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 10_000 {
				if e, ok := table.Lookup(tag); !ok || e.Value != 1 {
					t.Error("not found")
					return
				}
			}
		})
	}
	for n := range 200 {
		table.Update(entries, time.Unix(someHour*3600+int64(n), 0))
	}
	wg.Wait()
}

func FuzzOpen(f *testing.F) {
	a, b := pairs(f)
	f.Add(a.Append(nil, Message{Kind: Ping}, someHour, 0))
	f.Add([]byte{0xd2, 1, 0, 0})
	f.Fuzz(func(t *testing.T, d []byte) {
		if _, ok := Tag(d); ok != wellFormed(d) {
			t.Fatal("Tag")
		}
		if m, err := a.Open(d); err == nil {
			t.Fatalf("%x opens as %+v", d, m)
		}
		_, _ = b.Open(d)
	})
}

func FuzzParseMessage(f *testing.F) {
	f.Add(appendMessage(nil, Message{Kind: Pong, Observed: netip.MustParseAddrPort("192.0.2.1:7")}))
	f.Add(appendMappedByHand())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err != nil {
			return
		}
		if again := appendMessage(nil, m); !bytes.Equal(again, b[:messageSz]) {
			t.Fatalf("%x parses as %+v, which is %x", b, m, again)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	x, y := pairs(b)
	d := x.Append(nil, Message{Kind: Ping}, someHour, 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := y.Open(d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdate1000(b *testing.B) {
	own := identity(b)
	var entries []Entry[int]
	for range 1000 {
		entries = append(entries, Entry[int]{Pair: pair(b, own, identity(b))})
	}
	var table Table[int]
	hour := int64(someHour)
	b.Run("same hour", func(b *testing.B) {
		for b.Loop() {
			table.Update(entries, time.Unix(hour*3600, 0))
		}
	})
	b.Run("next hour", func(b *testing.B) {
		for b.Loop() {
			hour++
			table.Update(entries, time.Unix(hour*3600, 0))
		}
	})
}
