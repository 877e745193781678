package lan

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

var (
	begin = time.Unix(500_000*3600+1800, 0)
	root  = []byte("a root key of thirty-two bytes..")
	link  = netip.MustParseAddrPort("192.168.1.7:51831")
)

func beacon(t testing.TB, root []byte, port uint16) *Beacon {
	t.Helper()
	b, err := NewBeacon(root, port)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// say is the first announcement of a fresh beacon.
func say(t testing.TB, b *Beacon, now time.Time) []byte {
	t.Helper()
	b.Changed()
	msg, _ := b.Poll(now)
	if msg == nil {
		t.Fatal("nothing is said after a change")
	}
	return msg
}

func TestMembersMeet(t *testing.T) {
	a, b := beacon(t, root, 51830), beacon(t, root, 40000)
	msg := say(t, a, begin)
	if len(msg) != Size {
		t.Errorf("%d bytes", len(msg))
	}
	at, meet := b.Heard(begin, link, msg)
	if want := netip.MustParseAddrPort("192.168.1.7:51830"); !meet || at != want {
		t.Errorf("meet %v at %v, want %v", meet, at, want)
	}
	if _, meet := b.Heard(begin, link, msg); meet {
		t.Error("met twice at once")
	}
	if _, meet := b.Heard(begin.Add(time.Second), link, msg); !meet {
		t.Error("not met again, after the first hello may have been lost")
	}
	if _, meet := a.Heard(begin, link, msg); meet {
		t.Error("met itself")
	}
}

// TestStrangersLearnNothing: two announcements have nothing in common but what all of them have, and nobody of another
// network takes one for its own.
func TestStrangersLearnNothing(t *testing.T) {
	a, other := beacon(t, root, 51830), beacon(t, []byte("another root key of 32 bytes...."), 51830)
	one, two := say(t, a, begin), say(t, a, begin)
	if !bytes.Equal(one[:nonceAt], two[:nonceAt]) || !bytes.Equal(one[headEnd:], make([]byte, Size-headEnd)) {
		t.Error("there is more in it than kind, port, nonce and tag")
	}
	if bytes.Equal(one[nonceAt:tagAt], two[nonceAt:tagAt]) || bytes.Equal(one[tagAt:headEnd], two[tagAt:headEnd]) {
		t.Error("two announcements can be linked")
	}
	if _, meet := other.Heard(begin, link, one); meet {
		t.Error("another network's is taken")
	}
}

func TestHeardRefuses(t *testing.T) {
	msg := say(t, beacon(t, root, 51830), begin)
	with := func(change func([]byte)) []byte {
		b := bytes.Clone(msg)
		change(b)
		return b
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "short": msg[:Size-1], "long": append(bytes.Clone(msg), 0),
		"kind": with(func(b []byte) { b[0] = 0xd1 }), "version": with(func(b []byte) { b[1] = 2 }),
		"port 0": with(func(b []byte) { b[2], b[3] = 0, 0 }), "port": with(func(b []byte) { b[3]++ }),
		"nonce": with(func(b []byte) { b[nonceAt]++ }), "tag": with(func(b []byte) { b[tagAt]++ }),
	} {
		if _, meet := beacon(t, root, 1).Heard(begin, link, bad); meet {
			t.Errorf("%s: taken", name)
		}
	}
	for hours := -3; hours <= 3; hours++ {
		_, meet := beacon(t, root, 1).Heard(begin.Add(time.Duration(hours)*time.Hour), link, msg)
		if want := hours >= -1 && hours <= 1; meet != want {
			t.Errorf("%+d hours later: %v", hours, meet)
		}
	}
}

// TestFloods: who knows the root key, and says so from many addresses, gets few hellos, and makes nothing grow.
func TestFloods(t *testing.T) {
	a, b := beacon(t, root, 51830), beacon(t, root, 1)
	met := 0
	for i := range 20_000 {
		now := begin.Add(time.Duration(i) * time.Second / 1000)
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
		a.Changed()
		msg, _ := a.Poll(now)
		if _, meet := b.Heard(now, from, msg); meet {
			met++
		}
	}
	if most := meetBurst + 20*meetRate + 1; met > most || met < meetBurst {
		t.Errorf("%d hellos in 20 s, want %d at most", met, most)
	}
	if len(b.met) > maxSources || len(a.own) > maxOwn {
		t.Errorf("%d sources, %d nonces are kept", len(b.met), len(a.own))
	}
}

// TestSpeaksRarely counts an hour.
func TestSpeaksRarely(t *testing.T) {
	b, now, count := beacon(t, root, 1), begin, 0
	for end := begin.Add(time.Hour); now.Before(end); {
		msg, next := b.Poll(now)
		if msg != nil {
			count++
		}
		if !next.After(now) {
			t.Fatal("it wants to be asked again at once")
		}
		now = next
	}
	if count < 50 || count > 63 {
		t.Errorf("%d announcements an hour", count)
	}
}

func FuzzHeard(f *testing.F) {
	msg := say(f, beacon(f, root, 51830), begin)
	f.Add(msg[:headEnd])
	f.Fuzz(func(t *testing.T, head []byte) {
		msg := make([]byte, Size)
		copy(msg, head)
		at, meet := beacon(t, root, 1).Heard(begin, link, msg)
		if meet && (at.Addr() != link.Addr() || at.Port() != binary.BigEndian.Uint16(msg[2:]) || at.Port() == 0) {
			t.Fatalf("%x leads to %v", head, at)
		}
		beacon(t, root, 1).Heard(begin, link, head)
	})
}
