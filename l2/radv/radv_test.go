package radv

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
)

var (
	routerMAC = MAC{2, 0x6d, 0x72, 1, 2, 3}
	hostMAC   = MAC{2, 0, 0, 0, 0, 7}
	prefix    = netip.MustParsePrefix("2001:db8:1:2::/64")
	epoch     = time.Unix(1_800_000_000, 0)
)

func config() *Config {
	return &Config{
		MAC: routerMAC, Addr: LinkLocal(routerMAC), Lifetime: 30 * time.Minute, MTU: 1500,
		Prefixes: []Prefix{{Prefix: prefix, Valid: 90 * time.Minute, Preferred: 45 * time.Minute}},
	}
}

// world polls an advertiser in simulated time.
type world struct {
	t   *testing.T
	a   *Advertiser
	now time.Time
}

func newWorld(t *testing.T) *world {
	return &world{t, NewAdvertiser(rand.New(rand.NewPCG(1, 2))), epoch}
}

// said is one frame and when it was sent.
type said struct {
	at time.Duration
	p  Packet
}

// run lets so much time pass and returns what was said.
func (w *world) run(d time.Duration) (all []said) {
	w.t.Helper()
	end := w.now.Add(d)
	for {
		frames, next := w.a.Poll(w.now)
		for _, f := range frames {
			p, err := Parse(f)
			if err != nil {
				w.t.Fatalf("%x: %v", f, err)
			}
			all = append(all, said{w.now.Sub(epoch), p})
		}
		if next.IsZero() || next.After(end) {
			w.now = end
			return all
		}
		if !next.After(w.now) {
			w.t.Fatalf("asked to poll again at once, at %v", w.now.Sub(epoch))
		}
		w.now = next
	}
}

func advertisements(all []said) []said {
	return slices.DeleteFunc(slices.Clone(all), func(s said) bool { return s.p.Message.Type() != (&ndp.RouterAdvertisement{}).Type() })
}

func TestExactBytes(t *testing.T) {
	c := config()
	c.DNS, c.Search, c.Preference = []netip.Addr{netip.MustParseAddr("2001:db8::53")}, []string{"mesh.internal"}, ndp.High
	w := newWorld(t)
	w.a.Set(c, w.now)
	frames, _ := w.a.Poll(w.now)
	want := []string{
		// neighbour advertisement: router, override
		"333300000001" + "026d72010203" + "86dd" + "60000000" + "0020" + "3aff" + "fe80000000000000006d72fffe010203" + "ff020000000000000000000000000001" +
			"8800CKSUa0000000" + "fe80000000000000006d72fffe010203" + "0201026d72010203",
		// router advertisement: hop limit 64, preference high, lifetime 1800 s
		"333300000001" + "026d72010203" + "86dd" + "60000000" + "0070" + "3aff" + "fe80000000000000006d72fffe010203" + "ff020000000000000000000000000001" +
			"8600CKSU40080708" + "0000000000000000" +
			"0101026d72010203" + // source link-layer address
			"05010000000005dc" + // MTU
			"030440c0" + "00001518" + "00000a8c" + "00000000" + "20010db8000100020000000000000000" + // prefix: on-link, autonomous
			"19030000" + "00000708" + "20010db8000000000000000000000053" + // RDNSS
			"1f030000" + "00000708" + "046d65736808696e7465726e616c00" + "00", // DNSSL
	}
	for i, f := range frames {
		if i >= len(want) {
			t.Fatalf("%d frames", len(frames))
		}
		got := hex.EncodeToString(f)
		at := strings.Index(want[i], "CKSU")
		if got[at:at+4] == "0000" {
			t.Error("no checksum")
		}
		if masked := got[:at] + "CKSU" + got[at+4:]; masked != want[i] {
			t.Errorf("frame %d\n%s, want\n%s", i, masked, want[i])
		}
	}
}

// TestUnsolicited: three advertisements soon, then at most ten minutes apart, never less
// than MIN_DELAY_BETWEEN_RAS.
func TestUnsolicited(t *testing.T) {
	w := newWorld(t)
	if got := w.run(time.Hour); len(got) != 0 {
		t.Fatalf("silent, and said %v", got)
	}
	start := w.now.Sub(epoch)
	w.a.Set(config(), w.now)
	all := advertisements(w.run(6 * time.Hour))
	for i, s := range all[1:] {
		gap := s.at - all[i].at
		if most := map[bool]time.Duration{true: initialInterval, false: maxInterval}[i < initialCount]; gap > most || gap < minDelay {
			t.Errorf("advertisement %d comes %v after the one before", i+1, gap)
		}
	}
	if all[0].at != start || len(all) < 36 || len(all) > 6*18+4 {
		t.Errorf("%d advertisements in six hours, the first after %v", len(all), all[0].at-start)
	}
}

func solicitation(src netip.Addr, mac MAC) []byte {
	m := &ndp.RouterSolicitation{}
	if !src.IsUnspecified() {
		m.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac[:]}}
	}
	f, err := Packet{mac, GroupMAC(allRouters()), src, allRouters(), m}.Frame()
	if err != nil {
		panic(err)
	}
	return f
}

func TestSolicited(t *testing.T) {
	w := newWorld(t)
	w.a.Set(config(), w.now)
	w.run(10 * time.Minute)
	asked := w.now.Sub(epoch)
	for range 100 { // the same host, again and again
		w.a.Receive(solicitation(LinkLocal(hostMAC), hostMAC), w.now)
	}
	got := advertisements(w.run(maxReplyDelay))
	if len(got) == 0 || len(got) > 2 || got[0].p.DstMAC != hostMAC || got[0].p.Dst != LinkLocal(hostMAC) || got[0].at-asked > maxReplyDelay {
		t.Fatalf("asked at %v: %+v", asked, got)
	}
	// Those who do not say who they are, or are too many, are told together, and not too often.
	begun, answers := w.now, 0
	for i := range 3000 {
		mac := MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}
		src := netip.IPv6Unspecified()
		if i%2 == 1 {
			src = LinkLocal(mac)
		}
		w.a.Receive(solicitation(src, mac), w.now)
		answers += len(w.run(10 * time.Millisecond))
	}
	if spent := w.now.Sub(begun); answers > 2*maxAskers*int(spent/maxReplyDelay)+int(spent/minDelay) || answers < int(spent/minDelay) {
		t.Errorf("%d answers to 3000 questions in %v", answers, spent)
	}
}

func TestSolicitedOnlyAtOnceByMulticast(t *testing.T) {
	w := newWorld(t)
	w.a.Set(config(), w.now)
	w.run(10 * time.Minute)
	begun, told := w.now, 0
	for range 1000 {
		w.a.Receive(solicitation(netip.IPv6Unspecified(), hostMAC), w.now)
		told += len(w.run(30 * time.Millisecond))
	}
	if most := int(w.now.Sub(begun)/minDelay) + 1; told > most || told < most/2 {
		t.Errorf("%d advertisements to all in %v, at most %d wanted", told, w.now.Sub(begun), most)
	}
}

// TestAskedWhere: the router answers for its own address, alone.
func TestAskedWhere(t *testing.T) {
	w := newWorld(t)
	c := config()
	w.a.Set(c, w.now)
	w.run(10 * time.Minute)
	ask := func(src, target netip.Addr) []said {
		f, err := Packet{hostMAC, routerMAC, src, target, &ndp.NeighborSolicitation{TargetAddress: target}}.Frame()
		if err != nil {
			t.Fatal(err)
		}
		w.a.Receive(f, w.now)
		return w.run(0)
	}
	got := ask(LinkLocal(hostMAC), c.Addr)
	if len(got) != 1 || got[0].p.DstMAC != hostMAC || !got[0].p.Message.(*ndp.NeighborAdvertisement).Solicited || got[0].p.SrcMAC != routerMAC {
		t.Errorf("asked by a host: %+v", got)
	}
	if got := ask(netip.IPv6Unspecified(), c.Addr); len(got) != 1 || got[0].p.Dst != allNodes() {
		t.Errorf("asked by one who wants the address: %+v", got)
	}
	if got := ask(LinkLocal(hostMAC), LinkLocal(hostMAC)); len(got) != 0 {
		t.Errorf("asked for another: %+v", got)
	}
}

// TestDeprecated: the lifetimes of a removed prefix count down, and it is not preferred.
func TestDeprecated(t *testing.T) {
	w := newWorld(t)
	c := config()
	c.Prefixes[0].Until = w.now.Add(time.Hour)
	w.a.Set(c, w.now)
	last := 2 * time.Hour
	for _, s := range advertisements(w.run(2 * time.Hour)) {
		for _, o := range s.p.Message.(*ndp.RouterAdvertisement).Options {
			if p, ok := o.(*ndp.PrefixInformation); ok {
				want := max(0, time.Hour-s.at).Truncate(time.Second)
				if p.PreferredLifetime != 0 || p.ValidLifetime != want || p.ValidLifetime > last {
					t.Errorf("at %v: valid %v, preferred %v; want %v, 0", s.at, p.ValidLifetime, p.PreferredLifetime, want)
				}
				last = p.ValidLifetime
			}
		}
	}
}

// TestQuiet: where nobody listens nothing is said; who asks is told, and kept up to
// date for as long as it heeds what it was told.
func TestQuiet(t *testing.T) {
	w := newWorld(t)
	c := config()
	c.Quiet = true
	w.a.Set(c, w.now)
	if all := w.run(6 * time.Hour); len(all) != 0 {
		t.Fatalf("nobody listens, and it says %d things", len(all))
	}
	w.a.Receive(solicitation(LinkLocal(hostMAC), hostMAC), w.now)
	first := advertisements(w.run(time.Second))
	if len(first) != 1 || first[0].p.DstMAC != hostMAC {
		t.Fatalf("asked, and said %+v", first)
	}
	if all := advertisements(w.run(80 * time.Minute)); len(all) < 8 || len(all) > 30 {
		t.Errorf("%d advertisements while the host heeds them", len(all))
	}
	w.run(20 * time.Minute)
	if all := w.run(6 * time.Hour); len(all) != 0 {
		t.Errorf("the host is gone, and it says %d things", len(all))
	}
	w.a.Receive(solicitation(netip.IPv6Unspecified(), hostMAC), w.now)
	if all := advertisements(w.run(time.Second)); len(all) != 1 || all[0].p.Dst != allNodes() {
		t.Errorf("asked by nobody in particular: %+v", all)
	}
	d := config() // hosts are seen
	w.a.Set(d, w.now)
	if all := advertisements(w.run(5 * time.Second)); len(all) == 0 {
		t.Error("there are hosts, and it says nothing")
	}
}

func TestGoodbye(t *testing.T) {
	w := newWorld(t)
	w.a.Set(config(), w.now)
	w.run(time.Minute)
	frames := w.a.Goodbye(w.now)
	var r Routers
	host := config()
	host.Lifetime = time.Hour
	for _, f := range frames {
		p, err := Parse(f)
		if m, ok := p.Message.(*ndp.RouterAdvertisement); err != nil || !ok || m.RouterLifetime != 0 {
			t.Errorf("%+v, %v", p, err)
		}
		r.Learn(f, w.now)
	}
	if len(frames) != 1 || w.a.Active() || len(r.List(w.now)) != 0 {
		t.Errorf("%d frames, active %v", len(frames), w.a.Active())
	}
}

func TestRouters(t *testing.T) {
	var r Routers
	now := epoch
	hear := func(n byte, lifetime time.Duration, p ndp.Preference) bool {
		c := config()
		c.MAC[5], c.Lifetime, c.Preference = n, lifetime, p
		c.Addr = LinkLocal(c.MAC)
		f, err := Packet{c.MAC, GroupMAC(allNodes()), c.Addr, allNodes(), c.message(now)}.Frame()
		if err != nil {
			t.Fatal(err)
		}
		return r.Learn(f, now)
	}
	names := func() (s []byte) {
		for _, h := range r.List(now) {
			s = append(s, h.MAC[5])
		}
		return s
	}
	if hear(1, 0, ndp.Medium) || len(names()) != 0 {
		t.Error("one without a way counts")
	}
	if !hear(1, time.Minute, ndp.Medium) || !hear(2, time.Hour, ndp.Low) || !hear(3, time.Hour, ndp.High) || !bytes.Equal(names(), []byte{3, 1, 2}) {
		t.Errorf("order %v", names())
	}
	if hear(1, time.Minute, ndp.Medium) {
		t.Error("a repetition is news")
	}
	now = now.Add(2 * time.Minute)
	if !bytes.Equal(names(), []byte{3, 2}) {
		t.Errorf("after its time: %v", names())
	}
	if !hear(3, 0, ndp.Medium) || !bytes.Equal(names(), []byte{2}) {
		t.Errorf("after a goodbye: %v", names())
	}
	for i := range 100 {
		hear(byte(10+i), time.Hour, ndp.Medium)
	}
	if len(r.List(now)) != maxRouters {
		t.Errorf("%d routers", len(r.List(now)))
	}
}

// FuzzReceive gives any frame to both machines: nothing breaks, and what is answered
// is well formed.
func FuzzReceive(f *testing.F) {
	f.Add(solicitation(LinkLocal(hostMAC), hostMAC))
	f.Add(solicitation(netip.IPv6Unspecified(), hostMAC))
	who, err := WhoHas(hostMAC, LinkLocal(routerMAC))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(who)
	c := config()
	ra, err := Packet{routerMAC, hostMAC, c.Addr, LinkLocal(hostMAC), c.message(epoch)}.Frame()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ra)
	f.Fuzz(func(t *testing.T, frame []byte) {
		var r Routers
		r.Learn(frame, epoch)
		w := newWorld(t)
		w.a.Set(c, w.now)
		w.a.Receive(fixed(frame), w.now)
		r.Learn(fixed(frame), epoch)
		w.run(time.Minute)
	})
}

// fixed completes the checksum, so that what is behind it is reached.
func fixed(frame []byte) []byte {
	f := bytes.Clone(frame)
	if len(f) < ethernetHeader+ipv6Header+4 {
		return f
	}
	ip := f[ethernetHeader:]
	body := ip[ipv6Header:]
	body[2], body[3] = 0, 0
	sum := checksum(netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40])), body)
	body[2], body[3] = byte(sum>>8), byte(sum)
	return f
}
