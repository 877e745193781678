package wireguard

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

func TestOracleRoles(t *testing.T) {
	for _, opts := range []struct {
		name string
		Options
	}{{"plain", Options{}}, {"preshared key", Options{PSK: [32]byte{5}}}, {"member", Options{Member: true}}} {
		t.Run(opts.name+", we initiate", func(t *testing.T) {
			o := newOracle(t, opts.Options, "")
			o.we()
			o.data()
		})
		t.Run(opts.name+", it initiates", func(t *testing.T) {
			o := newOracle(t, opts.Options, "")
			o.they()
			o.data()
		})
	}
}

// Several rekeys in both roles. Packets under the key before still pass.
func TestOracleRekeys(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.we()
	o.data()
	for i := range 3 {
		before := o.session.SendKey()
		// By our timer: a packet sent when the key is RekeyAfterTime old.
		o.pause()
		o.skip += RekeyAfterTime
		if !before.initiator {
			t.Fatalf("rekey %d: not the initiator", i)
		}
		o.data()
		o.flush()
		if _, err := o.take(o.next(TypeResponse)); err != nil {
			t.Fatal(err)
		}
		if o.session.SendKey() == before {
			t.Fatalf("rekey %d: the same key", i)
		}
		late, err := before.Seal(nil, tuntest.Ping(theirIP, ourIP))
		if err != nil {
			t.Fatal(err)
		}
		o.give(late)
		o.arrives()
		o.data()
	}
	for i := range 3 {
		before := o.session.SendKey()
		o.pause()
		o.skip += InitiationGap
		o.they()
		if kp := o.session.SendKey(); kp == before || kp.initiator {
			t.Fatalf("rekey %d by the device: no new key", i)
		}
		o.data()
	}
	o.pause()
	o.skip += RekeyTimeout
	o.we()
	o.data()
}

func TestOraclePresharedKeyMismatch(t *testing.T) {
	o := newOracle(t, Options{PSK: [32]byte{5}}, "preshared_key="+hex.EncodeToString(make([]byte, 32))+"\n")
	o.initiate(o.now())
	o.flush()
	if _, err := o.take(o.next(TypeResponse)); !errors.Is(err, ErrAuth) {
		t.Errorf("response under another preshared key: %v", err)
	}
}

// The device under load: it wants a cookie, and takes our next initiation with it.
func TestOracleUnderLoad(t *testing.T) {
	o := newOracle(t, Options{}, "")
	target := newTargetKeys(o.session.remote)
	stranger := newEnd(t, testKey(77), o.session.remote, Options{})
	flood := make([][]byte, conn.IdealBatchSize)
	for i := range flood {
		flood[i] = message(t, stranger)
		new(jar).stamp(&target, flood[i], o.now())
	}
	var reply datagram
	for deadline := time.Now().Add(patience); ; {
		if time.Now().After(deadline) {
			t.Fatal("the device never was under load")
		}
		for range 8 { // its queue holds 1024, an eighth is load
			o.give(flood...)
		}
		o.do(o.session.Expire(o.now()), o.now())
		o.skip += time.Second
		o.initiate(o.now())
		index := o.session.attempt.index
		o.flush()
		if reply = o.next(TypeCookie, TypeResponse); reply.data[0] == byte(TypeResponse) {
			continue
		}
		for { // one that answers us and not the flood
			if i, _ := Receiver(reply.data); i == index {
				break
			}
			select {
			case reply = <-o.bind.out:
			case <-time.After(patience):
				t.Fatal("no reply to us")
			}
		}
		if reply.data[0] == byte(TypeCookie) {
			break
		}
	}
	if err := o.session.HandleCookie(reply.data, "path", o.now()); err != nil {
		t.Fatal(err)
	}
	mac2 := func(m []byte) bool { return binary.LittleEndian.Uint64(mac2In(m)) != 0 }
	if o.initiate(o.now()); len(o.sent) != 0 {
		t.Error("the cookie makes the initiator repeat at once")
	}
	o.skip += RekeyTimeout
	o.tick(o.now())
	if len(o.sent) != 1 || !mac2(o.sent[0]) {
		t.Fatal("no initiation with a cookie")
	}
	o.flush()
	for { // cookie replies to the flood may be left
		d := o.next(TypeResponse)
		if i, _ := Receiver(d.data); i == o.session.attempt.index {
			if _, err := o.take(d); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	o.data()
}

// We are under load: the device gets a cookie and comes back with it.
func TestOracleWeAreUnderLoad(t *testing.T) {
	o := newOracle(t, Options{}, "")
	src := []byte("where the device is")
	o.offer()
	first := o.next(TypeInitiation).data
	ok, reply := o.local.CheckMACs(first, src, true, o.now())
	if ok || reply == nil {
		t.Fatal("accepted without a cookie")
	}
	o.give(reply)
	// The reply is handled by the time the device has answered an initiation of ours
	// that comes after it; with one worker for each core, ask once for each.
	for range 4 {
		o.give(reply)
	}
	deadline := time.Now().Add(patience)
	for {
		o.pause()
		o.peer().ExpireCurrentKeypairs()
		o.offer()
		msg := o.next(TypeInitiation).data
		if ok, _ := o.local.CheckMACs(msg, src, true, o.now()); ok {
			if ok, _ := o.local.CheckMACs(msg, []byte("elsewhere"), true, o.now()); ok {
				t.Error("the cookie is good from elsewhere")
			}
			if err := o.handshake(msg, o.now()); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the device does not use the cookie")
		}
	}
	o.flush()
	o.expect(o.next(TypeTransport))
}

// A lost first initiation, ours and the device's.
func TestOracleLostInitiation(t *testing.T) {
	for _, tc := range []struct {
		name  string
		opts  Options
		after time.Duration
	}{{"standard", Options{}, RekeyTimeout}, {"member", Options{Member: true}, 2 * FirstRetry}} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOracle(t, tc.opts, "")
			start := o.now()
			o.initiate(start)
			for len(o.messages()) == 0 {
				o.tick(o.wake)
			}
			o.tick(o.wake)
			if d := o.wake.Sub(start); d > 3*tc.after {
				t.Errorf("third initiation after %v", d)
			}
			o.flush()
			if _, err := o.take(o.next(TypeResponse)); err != nil {
				t.Fatal(err)
			}
			o.data()
		})
	}
	t.Run("the device's", func(t *testing.T) {
		o := newOracle(t, Options{}, "")
		o.offer()
		o.next(TypeInitiation) // lost
		o.pause()
		o.they()
		o.data()
	})
}

// Both initiate at once. The device forgets its initiation when it answers
// ours, so that our key is the one.
func TestOracleSimultaneousStart(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.offer()
	theirs := o.next(TypeInitiation)
	o.initiate(o.now())
	ours := o.messages()[0]
	o.give(ours)
	response := o.next(TypeResponse)
	if _, err := o.take(theirs); err != nil {
		t.Fatal(err)
	}
	if _, err := o.take(response); err != nil {
		t.Fatal(err)
	}
	o.expect(o.next(TypeTransport)) // what it had waiting
	o.data()
}

func TestOracleReplays(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.we()
	o.data()
	first := o.seal(string(tuntest.Ping(theirIP, ourIP)), o.now())
	before := o.counter("rx_bytes")
	o.give(first, first)
	o.give(first)
	o.arrives()
	o.data()                                                    // the next that comes out is a new one
	if n := o.counter("rx_bytes") - before; n != 2*len(first) { // with that of data
		t.Errorf("the device counts %d bytes of two packets of %d", n, len(first))
	}
	o.offer()
	d := o.next(TypeTransport)
	again := append([]byte(nil), d.data...)
	o.expect(d)
	if _, err := o.open(again, o.now()); !errors.Is(err, ErrReplay) {
		t.Errorf("a repeated packet: %v", err)
	}
}

// Our keepalive reaches it, and its reaches us.
func TestOracleKeepalives(t *testing.T) {
	o := newOracle(t, Options{}, "persistent_keepalive_interval=1\n")
	o.we()
	d := o.next(TypeTransport)
	if got, err := o.take(d); err != nil || got != "" {
		t.Fatalf("keepalive of the device: %q, %v", got, err)
	}
	o.offer()
	for { // between keepalives
		got, err := o.take(o.next(TypeTransport))
		if err != nil {
			t.Fatal(err)
		}
		if got != "" {
			break
		}
	}
	before := o.counter("rx_bytes")
	o.skip += KeepaliveTimeout
	o.tick(o.now())
	o.flush()
	o.data()
	if n := o.counter("rx_bytes") - before; n != Overhead+Overhead+32 {
		t.Errorf("the device counts %d bytes of a keepalive and a packet", n)
	}
}

// We move. The device follows our next packet, and we do not mind where its
// packets come from.
func TestOracleRoaming(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.we()
	o.data()
	o.addr = ourMoved
	o.give(o.seal(string(tuntest.Ping(theirIP, ourIP)), o.now()))
	o.arrives()
	o.offer()
	d := o.next(TypeTransport)
	if d.addr != ourMoved {
		t.Errorf("the device sends to %v", d.addr)
	}
	o.expect(d)
}

// Both ends of the counter.
func TestOracleCounterLimits(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.we()
	o.data()
	o.pause()
	key := o.session.SendKey()
	key.nonce.Store(RejectAfterMessages - 1)
	o.skip += RekeyTimeout
	last := o.seal(string(tuntest.Ping(theirIP, ourIP)), o.now())
	if last == nil {
		t.Fatal("the last counter is not used")
	}
	rekey := o.messages()
	if len(rekey) != 1 {
		t.Fatal("no rekey at the end of the counter")
	}
	o.give(last)
	o.arrives()
	// One beyond, made by force: the device must refuse it, so we must never send it.
	header := binary.LittleEndian.AppendUint32([]byte{4, 0, 0, 0}, key.remoteIndex)
	header = binary.LittleEndian.AppendUint64(header, RejectAfterMessages)
	beyond := key.keys.send.Seal(header, append(make([]byte, 4), header[8:]...), tuntest.Ping(theirIP, ourIP), nil)
	before := o.counter("rx_bytes")
	o.give(beyond)
	o.give(rekey[0])
	if _, err := o.take(o.next(TypeResponse)); err != nil {
		t.Fatal(err)
	}
	o.data()
	if n := o.counter("rx_bytes") - before; n > InitiationSize+Overhead+Overhead+32 {
		t.Errorf("the device counts %d bytes: the packet beyond the limit as well", n)
	}
}

// A packet of the device that was lost, and one that is late, do not matter.
func TestOracleLossAndReordering(t *testing.T) {
	o := newOracle(t, Options{}, "")
	o.they()
	var late []datagram
	for range 5 {
		o.offer()
		late = append(late, o.next(TypeTransport))
	}
	for _, i := range []int{4, 0, 2, 3} {
		o.expect(late[i])
	}
	o.data()
}
