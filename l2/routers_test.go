package l2

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

var routerMAC = MAC{2, 0x6d, 0x72, 9, 9, 9}

// routerRig is a switch with a virtual router, two members with the role, and one without.
func routerRig(t *testing.T, seen *[][]byte) *rig {
	r := newRig(t, Config{Observe: func(f []byte) { *seen = append(*seen, bytes.Clone(f)) }})
	r.connect("one", Allow{MAC: MAC{2, 0, 0, 0, 0, 1}, Router: true})
	r.connect("two", Allow{MAC: MAC{2, 0, 0, 0, 0, 2}, Router: true})
	r.connect("guest", Allow{MAC: MAC{2, 0, 0, 0, 0, 3}})
	r.sw.SetRouters([]MAC{routerMAC}, nil)
	return r
}

func toward(dst, src MAC) []byte {
	return ethernetFrame(dst, src)
}

func ethernetFrame(dst, src MAC) []byte {
	f := append(append(append([]byte(nil), dst[:]...), src[:]...), 0x88, 0xb5)
	return append(f, make([]byte, 46)...)
}

// TestRouterMoves: the virtual router is where a member with the role last spoke
// from it, and nobody else may.
func TestRouterMoves(t *testing.T) {
	var seen [][]byte
	r := routerRig(t, &seen)
	broadcast := MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for _, c := range []struct {
		name, from string
		frame      []byte
		want, at   string
	}{
		{"nobody yet: to members that may have hosts", "", toward(routerMAC, ownMAC), "one two", "?"},
		{"one speaks", "one", toward(broadcast, routerMAC), "host", "one"},
		{"so it is there", "", toward(routerMAC, ownMAC), "one", "one"},
		{"a member without the role", "guest", toward(broadcast, routerMAC), "!source-mac", "one"},
		{"and its host", "guest", from(routerMAC, advertisement(linkLocal(routerMAC).String(), routerMAC[:])), "!source-mac", "one"},
		{"its address at another MAC", "two", from(MAC{2, 0, 0, 0, 0, 2}, advertisement(linkLocal(routerMAC).String(), []byte{2, 0, 0, 0, 0, 2})), "!address-taken", "one"},
		{"the host here has no role", "", toward(broadcast, routerMAC), "!source-mac", "one"},
		{"two takes over", "two", toward(broadcast, routerMAC), "host", "two"},
		{"at once", "", toward(routerMAC, ownMAC), "two", "two"},
		{"one's later frame to it is not ours", "one", toward(routerMAC, MAC{2, 0, 0, 0, 0, 1}), "!elsewhere", "two"},
	} {
		if got := r.send(c.from, c.frame); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		at, known := r.sw.RouterAt(routerMAC)
		if !known {
			at = "?"
		}
		if at != c.at {
			t.Errorf("%s: the router is at %q, want %q", c.name, at, c.at)
		}
	}
	r.disconnect("two")
	if _, known := r.sw.RouterAt(routerMAC); known {
		t.Error("it is still where a member was that has gone")
	}
}

// TestRouterHere: what goes to the virtual router while it is here reaches the host
// under its own address.
func TestRouterHere(t *testing.T) {
	var seen [][]byte
	r := routerRig(t, &seen)
	r.sw.SetOwn(Allow{MAC: ownMAC, Router: true})
	ra := from(routerMAC, advertisement(linkLocal(routerMAC).String(), routerMAC[:]))
	r.sw.Inject(ra)
	for name, d := range map[string]*tape{"host": r.host, "one": r.ports["one"], "guest": r.ports["guest"]} {
		if len(d.frames) != 1 || !bytes.Equal(d.frames[0], ra) {
			t.Errorf("%s has %d frames, want what was injected", name, len(d.frames))
		}
		d.frames = nil
	}
	if at, known := r.sw.RouterAt(routerMAC); at != "" || !known {
		t.Fatalf("the router is at %q, %v", at, known)
	}
	guest := MAC{2, 0, 0, 0, 0, 3}
	r.remotes["guest"].Receive(toward(routerMAC, guest), 0)
	r.remotes["guest"].Flush()
	if want := toward(ownMAC, guest); len(r.host.frames) != 1 || !bytes.Equal(r.host.frames[0], want) {
		t.Fatalf("the host received %x, want %x", r.host.frames, want)
	}
	// What is for the router's own address is not the kernel's, which would forward it.
	r.host.frames = nil
	ask := from(guest, edit(advertisement(linkLocal(guest).String(), guest[:]), 54, 135))
	copy(ask, routerMAC[:])
	ask[78] = 1
	copy(ask[38:], linkLocal(routerMAC).AsSlice())
	r.remotes["guest"].Receive(ask, 0)
	r.remotes["guest"].Flush()
	// Whoever asks for it is heard, also a host that the kernel bridges to us.
	seen = nil
	neighbour := MAC{2, 0, 0, 0, 7, 8}
	nud := from(neighbour, edit(advertisement(linkLocal(neighbour).String(), neighbour[:]), 54, 135))
	copy(nud, routerMAC[:])
	copy(nud[22:], linkLocal(neighbour).AsSlice())
	copy(nud[62:], linkLocal(routerMAC).AsSlice())
	nud[78] = 1
	r.pump.batch([]Frame{{Data: nud}})
	if len(seen) != 1 {
		t.Errorf("%d of its questions are heard", len(seen))
	}
	mine := toward(routerMAC, ownMAC) // nor does what it sends there come back
	r.pump.batch([]Frame{{Data: mine}})
	if len(r.host.frames) != 0 {
		t.Errorf("the host received %x", r.host.frames)
	}
	// A host that the kernel bridges to us: back to this host, from the router.
	r.host.frames = nil
	lan := MAC{2, 0, 0, 0, 7, 7}
	r.pump.batch([]Frame{{Data: toward(routerMAC, lan)}})
	if want := toward(ownMAC, routerMAC); len(r.host.frames) != 1 || !bytes.Equal(r.host.frames[0], want) {
		t.Fatalf("the host received %x, want %x", r.host.frames, want)
	}
}

// TestObserved: the control plane sees what hosts ask routers, and what routers say.
func TestObserved(t *testing.T) {
	var seen [][]byte
	r := routerRig(t, &seen)
	one, guest := MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 3}
	for _, c := range []struct {
		name, from string
		frame      []byte
		want       int
	}{
		{"advertisement", "one", from(one, routerAdvertisement("fe80::7", one[:])), 1},
		{"advertisement without the role", "guest", from(guest, routerAdvertisement("fe80::7", guest[:])), 0},
		{"ordinary neighbour", "one", from(one, advertisement("2001:db8::1", one[:])), 0},
	} {
		seen = nil
		r.send(c.from, c.frame)
		if len(seen) != c.want {
			t.Errorf("%s: %d frames observed, want %d", c.name, len(seen), c.want)
		}
	}
	ask := from(one, edit(advertisement("2001:db8::1", one[:]), 54, 135))
	ask[62+8*0+16] = 1 // its option names the source
	for _, watch := range [][]netip.Prefix{nil, {netip.MustParsePrefix("2001:db8::/64")}} {
		seen = nil
		r.sw.SetRouters([]MAC{routerMAC}, watch)
		r.send("one", ask)
		if len(seen) != len(watch) {
			t.Errorf("watching %v: %d solicitations observed", watch, len(seen))
		}
	}
}

func TestHolder(t *testing.T) {
	var seen [][]byte
	r := routerRig(t, &seen)
	one := MAC{2, 0, 0, 0, 0, 1}
	ip := netip.MustParseAddr("2001:db8::1")
	r.send("one", from(one, advertisement(ip.String(), one[:])))
	if mac, ok := r.sw.Holder(ip); mac != one || !ok {
		t.Errorf("%v is at %v, %v", ip, mac, ok)
	}
	r.time = r.time.Add(holderAge + 1)
	if _, ok := r.sw.Holder(ip); ok {
		t.Error("held for ever")
	}
}

// TestObservedIsBounded: whoever asks for routers without end costs the control plane a few
// frames a second, and others are heard meanwhile.
func TestObservedIsBounded(t *testing.T) {
	var seen [][]byte
	r := routerRig(t, &seen)
	solicitation := func(dst, src MAC) []byte {
		f := from(src, raw("02000000 00ff 020000000001 86dd 60000000 0008 3aff fe800000000000000000000000000005 ff020000000000000000000000000002 8500 0000 00000000"))
		copy(f, dst[:])
		copy(f[14+8+13:], src[3:]) // each has an address of its own
		return f
	}
	guest := MAC{2, 0, 0, 0, 0, 3}
	for name, flood := range map[string]func(){
		"a member, to this host alone": func() { r.send("guest", solicitation(ownMAC, guest)) },
		"a host on our side":           func() { r.send("", solicitation(guest, host1)) },
	} {
		seen = nil
		for range 10000 { // in a second
			r.time = r.time.Add(100 * time.Microsecond)
			flood()
		}
		if n := len(seen); n < observeRate || n > observeRate+observeBurst {
			t.Errorf("%s: %d of 10,000 were seen, want %d and some", name, n, observeRate)
		}
		seen = nil
		r.send("one", solicitation(ownMAC, MAC{2, 0, 0, 0, 0, 1}))
		if len(seen) != 1 {
			t.Errorf("%s: another is not heard any more", name)
		}
		r.time = r.time.Add(2 * time.Second)
	}
}
