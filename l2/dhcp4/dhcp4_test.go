package dhcp4

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var (
	serverMAC = MAC{2, 0, 0, 0, 0, 1}
	epoch     = time.Unix(1_800_000_000, 0)
	subnet    = netip.MustParsePrefix("192.0.2.0/24")
)

// world is a server in simulated time, and who has which address besides.
type world struct {
	t    *testing.T
	s    *Server
	now  time.Time
	held map[netip.Addr]MAC
}

func newWorld(t *testing.T, p netip.Prefix, leases ...Lease) *world {
	cfg := Config{MAC: serverMAC, Subnet: p, DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, MTU: 1500}
	return &world{t, New(cfg, leases), epoch, map[netip.Addr]MAC{}}
}

func mac(n int) MAC { return MAC{2, 0, 0, 1, byte(n >> 8), byte(n)} }

// send sends a client's message and returns the answer, nil for none, and how many probes there were.
func (w *world) send(m *dhcpv4.DHCPv4, err error) (*dhcpv4.DHCPv4, int) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	src := MAC(m.ClientHWAddr)
	f := frame(MAC{255, 255, 255, 255, 255, 255}, src, netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255}), m.ToBytes())
	f[34], f[35], f[36], f[37] = 0, portClient, 0, portServer
	w.s.Receive(f, w.now)
	probes := 0
	for {
		frames, next := w.s.Poll(w.now, func(ip netip.Addr) (MAC, bool) { m, ok := w.held[ip]; return m, ok })
		for _, f := range frames {
			if f[12] == 8 && f[13] == 6 {
				probes++
				continue
			}
			answer, err := dhcpv4.FromBytes(f[maxHeader:])
			if err != nil {
				w.t.Fatal(err)
			}
			if answer.TransactionID == m.TransactionID {
				return answer, probes
			}
		}
		if next.IsZero() {
			return nil, probes
		}
		w.now = next
	}
}

func discover(n int, with ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	m := mac(n)
	return dhcpv4.NewDiscovery(net.HardwareAddr(m[:]), with...)
}

func request(offer *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) { return dhcpv4.NewRequestFromOffer(offer) }

// join takes a client through all of it.
func (w *world) join(n int) netip.Addr {
	w.t.Helper()
	offer, _ := w.send(discover(n))
	if offer == nil {
		return netip.Addr{}
	}
	ack, _ := w.send(request(offer))
	if ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck {
		w.t.Fatalf("client %d: %v", n, ack)
	}
	return ipOf(ack.YourIPAddr)
}

func TestLease(t *testing.T) {
	w := newWorld(t, subnet)
	offer, probes := w.send(discover(1))
	if offer == nil || probes != 1 || offer.MessageType() != dhcpv4.MessageTypeOffer || w.now.Sub(epoch) < probeFor {
		t.Fatalf("%d probes, after %v: %v", probes, w.now.Sub(epoch), offer)
	}
	ip := ipOf(offer.YourIPAddr)
	if !subnet.Contains(ip) || ipOf(offer.ServerIdentifier()) != w.s.cfg.Router() || ipOf(offer.Router()[0]) != w.s.cfg.Router() ||
		offer.IPAddressLeaseTime(0) != DefaultLease || len(offer.DNS()) != 1 || net.IP(offer.SubnetMask()).String() != "255.255.255.0" {
		t.Error(offer.Summary())
	}
	if len(w.s.Leases()) != 0 {
		t.Error("an offer is a lease")
	}
	if ack, _ := w.send(request(offer)); ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck || ipOf(ack.YourIPAddr) != ip {
		t.Fatal(ack)
	}
	if !w.s.Changed() || w.s.Changed() || len(w.s.Leases()) != 1 {
		t.Errorf("leases: %v", w.s.Leases())
	}
	// It asks again, and is not probed for; also of a server that has been killed.
	w = newWorld(t, subnet, w.s.Leases()...)
	if offer, probes := w.send(discover(1)); offer == nil || probes != 0 || ipOf(offer.YourIPAddr) != ip {
		t.Errorf("%d probes: %v", probes, offer)
	}
	// Another one gets another, also when it wants this.
	if offer, _ := w.send(discover(2, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip.AsSlice())))); ipOf(offer.YourIPAddr) == ip {
		t.Error("two have one address")
	}
}

func TestRequests(t *testing.T) {
	w := newWorld(t, subnet)
	mine := w.join(1)
	hw := mac(1)
	other := mac(9)
	msg := func(m MAC, with ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
		return dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(net.HardwareAddr(m[:])), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)}, with...)...)
	}
	wants := func(s string) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(s)))
	}
	ack, nak, silent := dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak, dhcpv4.MessageTypeNone
	for _, c := range []struct {
		name string
		m    MAC
		with []dhcpv4.Modifier
		want dhcpv4.MessageType
	}{
		{"renews", hw, []dhcpv4.Modifier{dhcpv4.WithClientIP(mine.AsSlice())}, ack},
		{"after a restart", hw, []dhcpv4.Modifier{wants(mine.String())}, ack},
		{"wants another's", hw, []dhcpv4.Modifier{wants("192.0.2.200")}, nak},
		{"of another network", other, []dhcpv4.Modifier{wants("10.0.0.7")}, nak},
		{"of another server on this network", other, []dhcpv4.Modifier{wants("192.0.2.77")}, silent},
		{"never offered by us", other, []dhcpv4.Modifier{wants("192.0.2.77"), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1)))}, nak},
		{"has chosen another server", other, []dhcpv4.Modifier{wants("192.0.2.77"), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 3)))}, silent},
		{"by a relay", other, []dhcpv4.Modifier{wants("10.0.0.7"), dhcpv4.WithGatewayIP(net.IPv4(10, 0, 0, 1))}, silent},
	} {
		answer, _ := w.send(msg(c.m, c.with...))
		got := silent
		if answer != nil {
			got = answer.MessageType()
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestInUse: an address that somebody has without a lease is not handed out.
func TestInUse(t *testing.T) {
	small := netip.MustParsePrefix("192.0.2.0/29") // .2 to .6
	w := newWorld(t, small)
	for i := 2; i <= 5; i++ {
		w.held[addr(number(small.Addr())+uint32(i))] = mac(100 + i)
	}
	if ip := w.join(1); ip.String() != "192.0.2.6" {
		t.Errorf("got %v", ip)
	}
	if ip := w.join(2); ip.IsValid() {
		t.Errorf("got %v of none", ip)
	}
	clear(w.held)
	w.now = w.now.Add(shunnedFor)
	if ip := w.join(2); !ip.IsValid() {
		t.Error("shunned for ever")
	}
}

func TestDeclineAndRelease(t *testing.T) {
	w := newWorld(t, subnet)
	ip := w.join(1)
	server := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(w.s.cfg.Router().AsSlice()))
	hw := mac(1)
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(net.HardwareAddr(hw[:])), dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline), server,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip.AsSlice())))
	w.send(m, err)
	again := w.join(1)
	if again == ip {
		t.Error("the address that it declined")
	}
	m, err = dhcpv4.New(dhcpv4.WithHwAddr(net.HardwareAddr(hw[:])), dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease), server, dhcpv4.WithClientIP(again.AsSlice()))
	w.send(m, err)
	if l := w.s.table.of(string(hw[:])); l == nil || w.now.Before(l.Until) {
		t.Errorf("released: %+v", l)
	}
	if w.join(1) != again {
		t.Error("it does not get back what it had")
	}
}

// TestBounded: a flood of clients fills the table and no more; who has a lease keeps it.
func TestBounded(t *testing.T) {
	w := newWorld(t, netip.MustParsePrefix("10.0.0.0/16"))
	mine := w.join(0)
	for i := 1; i < 3*maxLeases; i++ {
		if ip := w.join(i); ip == mine {
			t.Fatalf("client %d has the address of another", i)
		}
		w.now = w.now.Add(time.Millisecond)
		if len(w.s.table.byKey) > maxLeases || len(w.s.pending) > maxPending || len(w.s.table.byIP) != len(w.s.table.byKey) {
			t.Fatalf("%d leases, %d addresses, %d pending", len(w.s.table.byKey), len(w.s.table.byIP), len(w.s.pending))
		}
	}
}

// TestLeasesAreSound: whatever was saved, nobody has two addresses and no address is two clients'.
func TestLeasesAreSound(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.10")
	far := epoch.Add(time.Hour)
	w := newWorld(t, subnet, Lease{"x", a, far, true, MAC{}}, Lease{"y", a, far, true, MAC{}}, Lease{"x", b, far, true, MAC{}}, Lease{"z", netip.MustParseAddr("10.0.0.1"), far, true, MAC{}},
		Lease{"r", netip.MustParseAddr("192.0.2.1"), far, true, MAC{}}, Lease{"", b, far, true, MAC{}}, Lease{"v6", netip.MustParseAddr("fd00::1"), far, true, MAC{}})
	if got := w.s.Leases(); !slices.Equal(got, []Lease{{"x", a, far, true, MAC{}}}) {
		t.Errorf("%v", got)
	}
}

func TestExactBytes(t *testing.T) {
	got := frame(mac(7), serverMAC, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.7"), []byte("hello!"))
	want := "020000010007" + "020000000001" + "0800" + "45000022" + "00000000" + "4011f6c2" + "c0000201" + "c0000207" + "0043" + "0044" + "000e" + "0000" + "68656c6c6f21"
	if hex.EncodeToString(got) != want {
		t.Errorf("%x, want\n%s", got, want)
	}
	s := New(Config{MAC: serverMAC, Subnet: subnet}, nil)
	if got, want := hex.EncodeToString(s.probe(netip.MustParseAddr("192.0.2.7"))),
		"ffffffffffff"+"020000000001"+"0806"+"0001080006040001"+"020000000001"+"00000000"+"000000000000"+"c0000207"; got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

// FuzzReceive gives any frame to a server.
func FuzzReceive(f *testing.F) {
	m, err := discover(1)
	if err != nil {
		f.Fatal(err)
	}
	seed := frame(MAC{255, 255, 255, 255, 255, 255}, mac(1), netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255}), m.ToBytes())
	seed[35], seed[37] = portClient, portServer
	f.Add(seed)
	f.Fuzz(func(t *testing.T, in []byte) {
		w := newWorld(t, subnet)
		before := bytes.Clone(in)
		w.s.Receive(in, epoch)
		if !bytes.Equal(in, before) {
			t.Error("the frame was changed")
		}
		for now, n := epoch, 0; n < 20; n++ {
			frames, next := w.s.Poll(now, func(netip.Addr) (MAC, bool) { return MAC{}, false })
			for _, f := range frames {
				if len(f) < ethernetHeader+28 {
					t.Errorf("%x", f)
				}
			}
			if next.IsZero() {
				break
			}
			now = next
		}
	})
}

// However many names one station has for itself, and whatever it says is taken, most of the
// addresses are left to others, and its own latest name has one.
func TestStarvation(t *testing.T) {
	named := func(i int) dhcpv4.Modifier {
		return dhcpv4.WithGeneric(dhcpv4.OptionClientIdentifier, []byte{0, byte(i >> 8), byte(i)})
	}
	for name, then := range map[string]func(w *world, i int, offer *dhcpv4.DHCPv4){
		"taken":   func(w *world, _ int, offer *dhcpv4.DHCPv4) { w.send(request(offer)) },
		"offered": func(*world, int, *dhcpv4.DHCPv4) {},
		"declined": func(w *world, i int, offer *dhcpv4.DHCPv4) {
			m := mac(1)
			w.send(dhcpv4.New(dhcpv4.WithHwAddr(m[:]), dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline), named(i),
				dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, subnet)
			offers, last := 0, false
			for i := range 300 { // in a minute and a half
				offer, _ := w.send(discover(1, named(i)))
				if last = offer != nil; last {
					offers++
					then(w, i, offer)
				}
			}
			if n := len(w.s.table.byKey) + len(w.s.table.shunned); n > maxOfMAC {
				t.Errorf("it keeps %d addresses from others", n)
			}
			if name == "declined" == last || name == "declined" && offers != maxOfMAC {
				t.Errorf("%d offers, the last request had one: %v", offers, last)
			}
			for n := 2; n < 240; n++ {
				if !w.join(n).IsValid() {
					t.Fatalf("client %d gets none", n)
				}
			}
		})
	}
}
