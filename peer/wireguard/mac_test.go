package wireguard

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// message makes an initiation from a without MACs.
func message(t *testing.T, a *end) []byte {
	t.Helper()
	msg, _, err := a.local.writeInitiation(a.session.remote, [32]byte{}, 5, timestamp(testStart))
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestMACs(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	msg := message(t, a)
	a.session.Stamp(msg, 1, testStart)
	if ok, reply := b.local.CheckMACs(msg, nil, false, testStart); !ok || reply != nil {
		t.Error("mac1 refused")
	}
	for i := range msg[:InitiationSize-macSize] {
		bad := bytes.Clone(msg)
		bad[i] ^= 0x10
		if ok, reply := b.local.CheckMACs(bad, nil, true, testStart); ok || reply != nil {
			t.Fatalf("changed byte %d: %v, reply of %d bytes", i, ok, len(reply))
		}
	}
	for _, n := range []int{0, 1, 31, 32, 147} {
		if ok, reply := b.local.CheckMACs(msg[:n], nil, true, testStart); ok || reply != nil {
			t.Errorf("%d bytes pass", n)
		}
	}
	if ok, _ := a.local.CheckMACs(msg, nil, false, testStart); ok {
		t.Error("mac1 for somebody else passes")
	}
}

// Cookies are bound to a source, belong to a path, and are good for two minutes.
func TestCookies(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	msg := message(t, a)
	check := func(path string, now time.Time) (bool, []byte) {
		a.session.Stamp(msg, path, now)
		return b.local.CheckMACs(msg, []byte("source of "+path), true, now)
	}
	ok, reply := check("p", testStart)
	if ok || len(reply) != CookieSize {
		t.Fatalf("%v, reply of %d bytes", ok, len(reply))
	}
	if i, _ := Receiver(reply); i != 5 {
		t.Errorf("reply for index %d", i)
	}
	if err := a.session.HandleCookie(reply, "q", testStart); err == nil {
		t.Error("a cookie is taken on a path on which nothing was sent")
	}
	bad := bytes.Clone(reply)
	bad[40] ^= 1
	if err := a.session.HandleCookie(bad, "p", testStart); err == nil {
		t.Error("a forged cookie is taken")
	}
	if err := a.session.HandleCookie(reply[:63], "p", testStart); err == nil {
		t.Error("a short cookie is taken")
	}
	if err := a.session.HandleCookie(reply, "p", testStart); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path string
		at         time.Duration
		want       bool
	}{
		{"with the cookie", "p", 0, true},
		{"on another path", "q", 0, false},
		{"after 119 s", "p", 119 * time.Second, true},
		{"after 120 s", "p", 120 * time.Second, false},
		{"after 121 s", "p", 121 * time.Second, false},
	} {
		if ok, _ := check(tc.path, testStart.Add(tc.at)); ok != tc.want {
			t.Errorf("%s: %v", tc.name, ok)
		}
	}
	old := reply
	msg[10] ^= 1
	a.session.Stamp(msg, "p", testStart)
	if err := a.session.HandleCookie(old, "p", testStart); err == nil {
		t.Error("a reply to an older message is taken")
	}
}

func TestJarsAreBounded(t *testing.T) {
	a, _ := newPair(t, Options{}, Options{})
	msg := message(t, a)
	for i := range 10 * maxJars {
		a.session.Stamp(msg, i, testStart.Add(time.Duration(i)))
	}
	if len(a.session.jars) != maxJars || a.session.jars[10*maxJars-1] == nil || a.session.jars[9*maxJars] == nil {
		t.Errorf("%d jars, or not the youngest", len(a.session.jars))
	}
}

// Our checks and cookies against wireguard-go's, both ways.
func TestMACsAgainstUpstream(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	now := time.Now()
	src := []byte{192, 0, 2, 1, 0x12, 0x34}
	unmarshal := func(reply []byte) *device.MessageCookieReply {
		var m device.MessageCookieReply
		if err := binary.Read(bytes.NewReader(reply), binary.LittleEndian, &m); err != nil {
			t.Fatal(err)
		}
		return &m
	}

	t.Run("our messages", func(t *testing.T) {
		var checker device.CookieChecker
		checker.Init(device.NoisePublicKey(b.local.public))
		msg := message(t, a)
		a.session.Stamp(msg, 1, now)
		if !checker.CheckMAC1(msg) || checker.CheckMAC2(msg, src) {
			t.Fatal("mac1 refused, or mac2 without a cookie accepted")
		}
		reply, err := checker.CreateReply(msg, 5, src)
		if err != nil {
			t.Fatal(err)
		}
		var raw bytes.Buffer
		if err := binary.Write(&raw, binary.LittleEndian, reply); err != nil {
			t.Fatal(err)
		}
		if err := a.session.HandleCookie(raw.Bytes(), 1, now); err != nil {
			t.Fatal(err)
		}
		a.session.Stamp(msg, 1, now)
		if !checker.CheckMAC1(msg) || !checker.CheckMAC2(msg, src) {
			t.Error("message with a cookie refused")
		}
	})

	t.Run("their messages", func(t *testing.T) {
		var generator device.CookieGenerator
		generator.Init(device.NoisePublicKey(b.local.public))
		msg := message(t, a)
		rand.Read(msg[8 : InitiationSize-2*macSize])
		generator.AddMacs(msg)
		ok, reply := b.local.CheckMACs(msg, src, true, now)
		if ok || !generator.ConsumeReply(unmarshal(reply)) {
			t.Fatal("accepted without a cookie, or the cookie was refused")
		}
		generator.AddMacs(msg)
		if ok, _ := b.local.CheckMACs(msg, src, true, now); !ok {
			t.Error("message with a cookie refused")
		}
		if ok, _ := b.local.CheckMACs(msg, src[:4], true, now); ok {
			t.Error("cookie accepted from another source")
		}
	})
}

func TestLimiter(t *testing.T) {
	l := NewLocal(testKey(1), testStart)
	count := func(addr string, from, to time.Time, every time.Duration) (n int) {
		for now := from; now.Before(to); now = now.Add(every) {
			if l.Allow(netip.MustParseAddr(addr), now) {
				n++
			}
		}
		return n
	}
	second := testStart.Add(time.Second)
	if n := count("192.0.2.1", testStart, second, time.Millisecond); n != 24 {
		t.Errorf("%d of 1000 in the first second, want 5 + 19", n)
	}
	if n := count("::ffff:192.0.2.1", second, second.Add(time.Second), time.Millisecond); n != 20 {
		t.Errorf("%d of 1000 in the next, want 20", n)
	}
	if n := count("192.0.2.2", second, second.Add(time.Millisecond), time.Millisecond); n != 1 {
		t.Error("another address has to pay")
	}
	if n := count("2001:db8::1", testStart, second, 2*time.Millisecond) + count("2001:db8::ffff:1", second, second.Add(time.Second), 2*time.Millisecond); n != 44 {
		t.Errorf("%d from one /64 in two seconds", n)
	}
	for i := range uint32(3 * maxBuckets) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], i)
		l.Allow(netip.AddrFrom4(a), second)
	}
	if n := len(l.limit.buckets); n > maxBuckets {
		t.Errorf("%d buckets", n)
	}
	l.Allow(netip.MustParseAddr("192.0.2.1"), second.Add(time.Minute))
	if n := len(l.limit.buckets); n != 1 {
		t.Errorf("%d buckets after a minute", n)
	}
}
