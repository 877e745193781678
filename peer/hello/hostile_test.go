package hello

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// A bit changed in any byte of any datagram: it leads to no result on either
// side and to no proof, and the attempt still succeeds by its repetitions.
func TestEveryByteCounts(t *testing.T) {
	n := newNetwork(t)
	a, b := n.member(t, "a"), n.member(t, "b")
	for at := range 6 {
		t.Run(fmt.Sprintf("datagram %d", at+1), func(t *testing.T) {
			l := &link{t: t, i: newInitiator(t, a), r: newResponder(t, b), src: source1()}
			l.edit = func(_ Step, msg []byte) []byte {
				if len(l.wire) == at+1 {
					return nil // changed versions of it come instead
				}
				return msg
			}
			l.tick(start())
			for i := range l.wire[at] {
				deliverChanged(l, at, i)
			}
			l.edit = nil
			if l.run(start().Add(firstRepeat)); l.i.Err() != nil || len(l.met) != 1 {
				t.Errorf("did not recover: %v, met %d", l.i.Err(), len(l.met))
			}
		})
	}
}

func deliverChanged(l *link, datagram, at int) {
	l.t.Helper()
	msg := bytes.Clone(l.wire[datagram])
	msg[at] ^= 1 << (at % 8)
	before := len(l.met)
	if datagram%2 == 0 {
		reply, met := l.r.Receive(l.src, msg, start())
		if msg = reply; met != nil {
			l.t.Fatalf("byte %d changed: the responder met %+v", at, met)
		}
	}
	if datagram == 0 && at >= headerLen && at < headerLen+cookieLen {
		return // one wrong cookie for another
	}
	out := l.i.Receive(msg, start())
	if step, _, _ := ParseHeader(out); step == StepProof || l.i.done() || len(l.met) != before {
		l.t.Fatalf("byte %d changed: step %d, result %v, err %v", at, step, l.i.Result(), l.i.Err())
	}
}

// Every prefix of every datagram, and each with a byte more, is ignored.
func TestOtherLengths(t *testing.T) {
	n := newNetwork(t)
	good, _ := meet(t, n.member(t, "a"), n.member(t, "b"))
	for at := range good.wire {
		for _, longer := range []bool{false, true} {
			l := &link{t: t, i: newInitiator(t, n.member(t, "a")), r: newResponder(t, n.member(t, "b")), src: source1()}
			count := 0
			l.edit = func(_ Step, msg []byte) []byte {
				if count++; count != at+1 {
					return msg
				}
				if longer {
					return append(msg, 0)
				}
				return msg[:len(msg)-1]
			}
			l.tick(start())
			if l.i.done() {
				t.Errorf("datagram %d, longer %v: result %v, err %v", at+1, longer, l.i.Result(), l.i.Err())
			}
		}
	}
}

// handshaken runs the exchange until the initiator has sent its proof, which is
// returned and not delivered.
func handshaken(t *testing.T, a Config, r *Responder, src netip.AddrPort, now time.Time) (*Initiator, []byte) {
	t.Helper()
	i, err := NewInitiator(a, now)
	if err != nil {
		t.Fatal(err)
	}
	msg, _ := i.Tick(now)
	for range 2 {
		reply, _ := r.Receive(src, msg, now)
		if msg = i.Receive(reply, now); msg == nil {
			t.Fatal("no answer")
		}
	}
	return i, msg
}

func TestRepetitionsGetTheSameBytes(t *testing.T) {
	n := newNetwork(t)
	r := newResponder(t, n.member(t, "b"))
	l := &link{t: t, i: newInitiator(t, n.member(t, "a")), r: r, src: source1()}
	l.run(start())
	later := start().Add(patience - time.Millisecond)
	for _, at := range []int{2, 4} {
		reply, met := r.Receive(source1(), l.wire[at], later)
		if !bytes.Equal(reply, l.wire[at+1]) || met != nil {
			t.Errorf("datagram %d repeated: %d bytes, met %v", at+1, len(reply), met)
		}
	}
	// From elsewhere, or when the connection has been forgotten, they get nothing new.
	elsewhere := netip.MustParseAddrPort("198.18.0.1:51831")
	if reply, met := r.Receive(elsewhere, l.wire[4], later); reply != nil || met != nil {
		t.Error("a proof replayed from elsewhere is answered")
	}
	if reply, met := r.Receive(source1(), l.wire[4], start().Add(patience)); reply != nil || met != nil {
		t.Error("a proof is answered after ten seconds")
	}
	if reply, _ := r.Receive(source1(), l.wire[2], start().Add(patience)); bytes.Equal(reply, l.wire[3]) {
		t.Error("a replayed open gets the same handshake after ten seconds")
	}
	if _, met := r.Receive(source1(), l.wire[4], start().Add(patience)); met != nil {
		t.Error("a replayed exchange is a meeting")
	}
}

func TestProofBeforeAndAfterExpiry(t *testing.T) {
	n := newNetwork(t)
	a, r := n.member(t, "a"), newResponder(t, n.member(t, "b"))
	_, proof := handshaken(t, a, r, source1(), start())
	if reply, met := r.Receive(source1(), proof, start().Add(patience)); reply != nil || met != nil {
		t.Error("a proof is taken after ten seconds")
	}
	_, proof = handshaken(t, a, r, source1(), start().Add(time.Minute))
	if _, met := r.Receive(source1(), proof, start().Add(time.Minute+patience-1)); met == nil {
		t.Error("a proof is not taken in time")
	}
}

// Proofs that Noise refuses, at any of its steps, do not spoil the connection.
func TestBadProofsDoNotSpoil(t *testing.T) {
	n := newNetwork(t)
	r := newResponder(t, n.member(t, "b"))
	i, proof := handshaken(t, n.member(t, "a"), r, source1(), start())
	for _, at := range []int{headerLen, headerLen + 47, headerLen + 48, 600, paddedLen - 1} {
		bad := bytes.Clone(proof)
		bad[at] ^= 1
		if reply, met := r.Receive(source1(), bad, start()); reply != nil || met != nil {
			t.Fatalf("byte %d changed: answered", at)
		}
	}
	reply, met := r.Receive(source1(), proof, start())
	if i.Receive(reply, start()); met == nil || i.Result() == nil {
		t.Errorf("the good proof: met %v, err %v", met, i.Err())
	}
}

// Answers that Noise refuses do not spoil the attempt: among them one with a
// key of low order, which Noise notices half-way.
func TestBadAnswersDoNotSpoil(t *testing.T) {
	n := newNetwork(t)
	l := &link{t: t, i: newInitiator(t, n.member(t, "a")), r: newResponder(t, n.member(t, "b")), src: source1()}
	var answer []byte
	l.edit = func(step Step, msg []byte) []byte {
		if step == StepAnswer && answer == nil {
			answer = msg
			return nil
		}
		return msg
	}
	l.tick(start())
	for _, change := range []func(b []byte){
		func(b []byte) { clear(b[headerLen : headerLen+keyLen]) },
		func(b []byte) { b[headerLen] ^= 1 },
		func(b []byte) { b[headerLen+keyLen] ^= 1 },
		func(b []byte) { b[answerLen-1] ^= 1 },
	} {
		bad := bytes.Clone(answer)
		change(bad)
		if out := l.i.Receive(bad, start()); out != nil || l.i.done() {
			t.Fatalf("a bad answer: %d bytes sent, err %v", len(out), l.i.Err())
		}
	}
	if l.run(start().Add(firstRepeat)); l.i.Err() != nil || len(l.met) != 1 {
		t.Errorf("err %v, met %d", l.i.Err(), len(l.met))
	}
}

// An open with a key of low order, and with a good cookie, is not answered and
// leaves no state.
func TestLowOrderOpen(t *testing.T) {
	r := newResponder(t, newNetwork(t).member(t, "b"))
	id := [8]byte{1}
	cookie := r.cookies.make(source1(), id, start())
	for _, key := range [][]byte{make([]byte, keyLen), append([]byte{1}, make([]byte, keyLen-1)...)} {
		if reply, _ := r.Receive(source1(), openMessage(id, cookie, key), start()); reply != nil {
			t.Error("answered")
		}
	}
	if len(r.conns.all) != 0 {
		t.Error("state was left")
	}
}

// flood is an open from a source of its own, without a valid cookie.
func flood(at int) (src netip.AddrPort, msg []byte) {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(0x0a000000+at))
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], uint64(at))
	return netip.AddrPortFrom(netip.AddrFrom4(a), 1000), openMessage(id, [cookieLen]byte{byte(at)}, make([]byte, keyLen))
}

func TestSpoofedSourcesLeaveNoState(t *testing.T) {
	n := newNetwork(t)
	r := newResponder(t, n.member(t, "b"))
	for at := range 65_536 {
		src, msg := flood(at)
		reply, met := r.Receive(src, msg, start())
		if len(reply) != cookieStep || met != nil {
			t.Fatalf("an open without cookie: %d bytes, met %v", len(reply), met)
		}
	}
	if len(r.conns.all) != 0 {
		t.Errorf("%d connections", len(r.conns.all))
	}
	l := &link{t: t, i: newInitiator(t, n.member(t, "a")), r: r, src: source1()}
	if l.run(start()); l.i.Err() != nil {
		t.Error(l.i.Err())
	}
}

// cookied makes an open from src that comes with its cookie.
func cookied(r *Responder, src netip.AddrPort, at int, now time.Time) []byte {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], uint64(at))
	key := append([]byte{9}, make([]byte, keyLen-1)...)
	return openMessage(id, r.cookies.make(src, id, now), key)
}

func TestTableIsBounded(t *testing.T) {
	n := newNetwork(t)
	r := newResponder(t, n.member(t, "b"))
	answered := 0
	now := start()
	for at := range 1000 { // a thousand real sources, in two and a half seconds
		src, _ := flood(at)
		if reply, _ := r.Receive(src, cookied(r, src, at, now), now); reply != nil {
			answered++
		}
		if len(r.conns.all) > maxConns {
			t.Fatalf("%d connections", len(r.conns.all))
		}
		now = now.Add(2500 * time.Microsecond)
	}
	if answered < 2*maxConns || answered > 4*maxConns {
		t.Errorf("answered %d: want 64 for each second", answered)
	}
	// Somebody honest finds a place within seconds all the same.
	i, err := NewInitiator(n.member(t, "a"), now)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{t: t, i: i, r: r, src: source1()}
	if l.run(now); i.Err() != nil {
		t.Error(i.Err())
	}
}

func TestOneUnfinishedFromEachSource(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b string
		same bool
	}{
		{"an IPv4 address, other ports", "198.18.0.1:1", "198.18.0.1:2", true},
		{"neighbours", "198.18.0.1:1", "198.18.0.2:1", false},
		{"one /64", "[2001:db8::1]:1", "[2001:db8::ffff:1]:1", true},
		{"two /64s", "[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		{"mapped", "198.18.0.1:1", "[::ffff:198.18.0.1]:2", true},
		{"one link, two zones", "[fe80::1%a]:1", "[fe80::2%b]:1", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newResponder(t, newNetwork(t).member(t, "b"))
			a, b := netip.MustParseAddrPort(tt.a), netip.MustParseAddrPort(tt.b)
			open := func(src netip.AddrPort, at int, now time.Time) bool {
				plain := netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
				reply, _ := r.Receive(src, cookied(r, plain, at, now), now)
				return reply != nil
			}
			if !open(a, 1, start()) {
				t.Fatal("the first was not answered")
			}
			if open(b, 2, start().Add(sourceGrace-1)) == tt.same {
				t.Errorf("a second within the round trip: same %v", tt.same)
			}
			if !open(b, 3, start().Add(sourceGrace)) && tt.same {
				t.Error("a second with a cookie was not answered")
			}
			if tt.same && len(r.conns.all) != 1 {
				t.Errorf("%d connections", len(r.conns.all))
			}
		})
	}
}

// Nodes behind one NAT that start together all come through, and one source
// does not fill the table.
func TestManyBehindOneAddress(t *testing.T) {
	n := newNetwork(t)
	r := newResponder(t, n.member(t, "b"))
	now := start()
	for at := range 40 {
		src := netip.AddrPortFrom(source1().Addr(), uint16(1000+at))
		i, err := NewInitiator(n.member(t, fmt.Sprintf("a%d", at)), now)
		if err != nil {
			t.Fatal(err)
		}
		l := &link{t: t, i: i, r: r, src: src}
		end := l.run(now)
		if i.Err() != nil || end.Sub(now) > 3*time.Second {
			t.Fatalf("node %d: %v after %v", at, i.Err(), end.Sub(now))
		}
		if len(r.conns.all) > perSource {
			t.Fatalf("%d connections from one source", len(r.conns.all))
		}
		now = end.Add(10 * time.Millisecond)
	}
}

// When the responder has lost the connection (a restart), the initiator begins
// anew by itself.
func TestResponderRestarts(t *testing.T) {
	n := newNetwork(t)
	b := n.member(t, "b")
	l := &link{t: t, i: newInitiator(t, n.member(t, "a")), r: newResponder(t, b), src: source1()}
	l.edit = func(step Step, msg []byte) []byte {
		if step == StepProof && len(l.wire) == 5 {
			l.r = newResponder(t, b)
			return nil
		}
		return msg
	}
	at := l.run(start())
	if l.i.Err() != nil || len(l.met) != 1 || at.Sub(start()) > 3*time.Second {
		t.Errorf("err %v, met %d, after %v", l.i.Err(), len(l.met), at.Sub(start()))
	}
}

func TestCookies(t *testing.T) {
	var c cookies
	id, other := [8]byte{1}, netip.MustParseAddrPort("198.18.0.1:51831")
	cookie := c.make(source1(), id, start())
	for _, tt := range []struct {
		name   string
		cookie [cookieLen]byte
		src    netip.AddrPort
		id     [8]byte
		after  time.Duration
		want   bool
	}{
		{"at once", cookie, source1(), id, 0, true},
		{"zero", [cookieLen]byte{}, source1(), id, 0, false},
		{"another port", cookie, other, id, 0, false},
		{"another address", cookie, netip.MustParseAddrPort("198.18.0.2:51830"), id, 0, false},
		{"another connection", cookie, source1(), [8]byte{2}, 0, false},
		{"just before the rotation", cookie, source1(), id, cookieRotation - 1, true},
		{"after the rotation", cookie, source1(), id, cookieRotation, true},
		{"just before the second", cookie, source1(), id, 2*cookieRotation - 1, true},
		{"after the second", cookie, source1(), id, 2 * cookieRotation, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := c.valid(tt.cookie, tt.src, tt.id, start().Add(tt.after)); got != tt.want {
				t.Errorf("valid = %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("long silence", func(t *testing.T) {
		var c cookies
		cookie := c.make(source1(), id, start())
		if c.valid(cookie, source1(), id, start().Add(time.Hour)) {
			t.Error("valid after an hour")
		}
	})
}

// A responder, or somebody in between, that sends cookie after cookie does not
// make the initiator send more than one datagram for each of its own.
func TestCookieStorm(t *testing.T) {
	i := newInitiator(t, newNetwork(t).member(t, "a"))
	sent := 0
	now := start()
	for at := 0; !i.done(); at++ {
		out, wake := i.Tick(now)
		if out != nil {
			sent++
		}
		for k := range 100 {
			msg := appendHeader(nil, StepCookie, i.Connection())
			msg = append(msg, make([]byte, cookieLen)...)
			binary.BigEndian.PutUint32(msg[headerLen:], uint32(at*100+k+1))
			if i.Receive(msg, now) != nil {
				sent++
			}
		}
		if !wake.IsZero() && wake.After(now) {
			now = wake
		}
		now = now.Add(time.Millisecond)
	}
	if sent > 70 {
		t.Errorf("sent %d datagrams in ten seconds", sent)
	}
}

// Somebody who answers with the network's root key but without a certificate
// for it is found out; before, nothing that he says makes a result.
func TestRogueWithTheRightRoot(t *testing.T) {
	n := newNetwork(t)
	rogue := Config{Identity: newIdentity(t), Trust: &n.trust, Chain: []byte("none")}
	l, _ := meet(t, n.member(t, "a"), rogue)
	if !errors.Is(l.i.Err(), ErrBadCertificate) {
		t.Errorf("got %v", l.i.Err())
	}
}

func TestSetConfig(t *testing.T) {
	n := newNetwork(t)
	b := n.member(t, "b")
	r := newResponder(t, Config{Identity: b.Identity})
	l := &link{t: t, i: newInitiator(t, n.member(t, "a")), r: r, src: source1()}
	l.run(start())
	var refused ErrRefused
	if !errors.As(l.i.Err(), &refused) {
		t.Errorf("before the join: %v", l.i.Err())
	}
	if err := r.SetConfig(b); err != nil {
		t.Fatal(err)
	}
	if err := r.SetConfig(Config{}); err == nil {
		t.Error("an empty configuration was taken")
	}
	l = &link{t: t, i: newInitiator(t, n.member(t, "a")), r: r, src: source1()}
	if l.run(start().Add(sourceGrace)); l.i.Err() != nil {
		t.Errorf("after the join: %v", l.i.Err())
	}
	// A renewal does not break what is under way.
	later := start().Add(time.Minute)
	i, proof := handshaken(t, n.member(t, "a"), r, source1(), later)
	if err := r.SetConfig(b); err != nil {
		t.Fatal(err)
	}
	reply, met := r.Receive(source1(), proof, later)
	if i.Receive(reply, later); met == nil || i.Result() == nil {
		t.Errorf("across a renewal: met %v, err %v", met, i.Err())
	}
}
