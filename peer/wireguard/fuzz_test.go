package wireguard

import (
	"bytes"
	"testing"
)

// Every fuzz target hands raw bytes to the message's way in, next to a pair
// that must still work afterwards. What the fuzzer cannot make, it may only
// have by replaying a seed. Where repairMAC is set, mac1 is made good, so that
// the fuzzer gets past it.

func FuzzInitiation(f *testing.F) {
	a, _ := newPair(f, Options{}, Options{})
	ephemeral := testKey(11) // fuzzing runs in several processes
	a.local.random = bytes.NewReader(ephemeral[:])
	a.initiate(testStart)
	genuine := a.messages()[0]
	f.Add(genuine, true)
	otherIndex := bytes.Clone(genuine)
	otherIndex[4] ^= 0xff
	f.Add(otherIndex, true)
	f.Add(genuine[:InitiationSize-1], false)
	f.Add(append([]byte{1, 0, 0, 0}, make([]byte, 144)...), true)
	f.Fuzz(func(t *testing.T, msg []byte, repairMAC bool) {
		a, b := newPair(t, Options{}, Options{})
		if repairMAC && len(msg) == InitiationSize {
			mac := b.local.keys.mac1Of(msg)
			copy(mac1In(msg), mac[:])
		}
		given := bytes.Clone(msg)
		ok, _ := b.local.CheckMACs(msg, nil, false, testStart)
		if _, reply := b.local.CheckMACs(msg, nil, true, testStart); len(reply) > len(msg) {
			t.Fatal("a reply larger than the message")
		}
		remote, h, err := b.local.InitiationKey(msg)
		if !bytes.Equal(msg, given) {
			t.Fatal("the message was changed")
		}
		if err == nil {
			// The sender's index (4 to 8) is no part of the Noise transcript: mac1
			// alone covers it, and anyone can make that (paper, 5.4.2).
			if !bytes.Equal(msg[8:116], genuine[8:116]) || remote != a.local.public {
				t.Fatal("an initiation was forged")
			}
			out, err := b.session.HandleInitiation(h, testStart)
			b.do(out, testStart)
			if err != nil {
				t.Fatal(err)
			}
			if r := b.messages(); len(r) != 1 || ok && len(r[0]) > len(msg) {
				t.Fatal("no response, or one that is too large")
			}
			if _, err := b.session.HandleInitiation(h, testStart.Add(RekeyTimeout)); err == nil {
				t.Fatal("an initiation was answered twice")
			}
		}
		connect(t, a, b, testStart.Add(RekeyTimeout))
	})
}

func FuzzResponse(f *testing.F) {
	a, b := newPair(f, Options{}, Options{})
	a.initiate(testStart)
	if err := b.handshake(a.messages()[0], testStart); err != nil {
		f.Fatal(err)
	}
	f.Add(b.messages()[0], false)
	f.Add(append([]byte{2, 0, 0, 0}, make([]byte, 88)...), true)
	f.Fuzz(func(t *testing.T, msg []byte, repairIndex bool) {
		a, b := newPair(t, Options{}, Options{})
		a.initiate(testStart)
		initiation := a.messages()[0]
		if repairIndex && len(msg) == ResponseSize {
			copy(msg[8:12], initiation[4:8])
		}
		out, err := a.session.HandleResponse(msg, testStart)
		a.do(out, testStart)
		if err == nil { // our ephemeral key is a new one each time
			t.Fatal("a response was forged")
		}
		if err := b.handshake(initiation, testStart); err != nil {
			t.Fatal(err)
		}
		if err := a.handshake(b.messages()[0], testStart); err != nil {
			t.Fatalf("after a forged response the true one is refused: %v", err)
		}
	})
}

func FuzzCookie(f *testing.F) {
	f.Add(append([]byte{3, 0, 0, 0}, make([]byte, 60)...))
	f.Add([]byte{3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		a, b := newPair(t, Options{}, Options{})
		a.initiate(testStart)
		initiation := a.messages()[0]
		if err := a.session.HandleCookie(msg, "path", testStart); err == nil {
			t.Fatal("a cookie was forged")
		}
		if err := a.session.HandleCookie(msg, "other", testStart); err == nil {
			t.Fatal("a cookie was taken from where nothing was sent")
		}
		_, reply := b.local.CheckMACs(initiation, nil, true, testStart)
		if err := a.session.HandleCookie(reply, "path", testStart); err != nil {
			t.Fatal(err)
		}
		a.session.Stamp(msg, "path", testStart) // of any bytes: must not panic
	})
}

func FuzzTransport(f *testing.F) {
	a, b := newPair(f, Options{}, Options{})
	connect(f, a, b, testStart)
	almost := a.seal("plaintext", testStart)
	almost[HeaderSize] ^= 1
	f.Add(almost, uint32(0), true)
	f.Add(append([]byte{4, 0, 0, 0}, make([]byte, 28)...), uint32(0), true)
	f.Add([]byte{4, 0, 0, 0, 0, 0, 0}, uint32(1<<31), false)
	f.Fuzz(func(t *testing.T, packet []byte, size uint32, repairIndex bool) {
		kp := b.session.SendKey()
		if repairIndex && len(packet) >= HeaderSize {
			packet[4], packet[5], packet[6], packet[7] = byte(kp.localIndex), byte(kp.localIndex>>8), byte(kp.localIndex>>16), byte(kp.localIndex>>24)
		}
		given := bytes.Clone(packet)
		if _, err := kp.Open(packet); err == nil {
			t.Fatal("a packet was forged")
		}
		if len(packet) >= HeaderSize && !bytes.Equal(packet[:HeaderSize], given[:HeaderSize]) {
			t.Fatal("the header was changed")
		}
		Receiver(given)
		Sender(given)
		plaintext := make([]byte, size%4096)
		sealed, err := a.session.SendKey().Seal(nil, plaintext)
		if err != nil || len(sealed) != len(plaintext)+Overhead {
			t.Fatal(err)
		}
		if got, err := kp.Open(sealed); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatal("an honest packet is refused", err)
		}
	})
}
