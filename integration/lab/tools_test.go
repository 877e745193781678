//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
)

func TestCapture(t *testing.T) {
	l := newLab(t)
	site := l.Internet("isp").Site("site", SiteConfig{NAT: Home})
	a, b := site.Host("a"), site.Host("b")
	out, err := a.Capture("eth0")
	if err != nil {
		t.Fatal(err)
	}
	in, err := b.Capture("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	head := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1}
	frames := map[string][]byte{
		"untagged": append(bytes.Clone(head), append([]byte{0x88, 0xb5}, make([]byte, 50)...)...),
		"VLAN":     append(bytes.Clone(head), append([]byte{0x81, 0, 0x60, 7, 0x88, 0xb5}, make([]byte, 50)...)...),
		"QinQ":     append(bytes.Clone(head), append([]byte{0x88, 0xa8, 0, 9, 0x81, 0, 0, 7, 0x88, 0xb5}, make([]byte, 50)...)...),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for name, frame := range frames {
		if err := a.SendFrame("eth0", frame); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Wait(ctx, func(f Frame) bool { return !f.Out && bytes.Equal(f.Data, frame) }); err != nil {
			t.Errorf("%s at the receiver: %v", name, err)
		}
		if _, err := out.Wait(ctx, func(f Frame) bool { return f.Out && bytes.Equal(f.Data, frame) }); err != nil {
			t.Errorf("%s at the sender: %v", name, err)
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	checkPcap(t, in)
	if _, err := a.Capture("eth9"); err == nil {
		t.Error("an interface that is not there is captured")
	}
}

// checkPcap reads a capture's file with another's reader.
func checkPcap(t *testing.T, c *Capture) {
	t.Helper()
	var file bytes.Buffer
	if err := c.WritePcap(&file); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range c.Frames() {
		data, meta, err := r.ReadPacketData()
		if err != nil || !bytes.Equal(data, f.Data) || meta.Timestamp.UnixMicro() != f.Time.UnixMicro() {
			t.Fatalf("frame %d: %x at %v, want %x at %v (%v)", i, data, meta.Timestamp, f.Data, f.Time, err)
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last frame: %v", err)
	}
}

func TestStream(t *testing.T) {
	l := newLab(t)
	n := l.Internet("isp")
	server, client := n.Host("server", HostConfig{}), n.Site("site", SiteConfig{NAT: Home}).Host("client")
	echo, err := server.Echo(netip.AddrPortFrom(server.Addr4(), 0))
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.Stream(t.Context(), echo.Addr())
	if err != nil {
		t.Fatal(err)
	}
	within := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		return s.Alive(ctx)
	}
	if err := within(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := n.Blackhole(server); err != nil {
		t.Fatal(err)
	}
	if err := within(200 * time.Millisecond); !isTimeout(err) {
		t.Errorf("through a cut: %v", err)
	}
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := within(10 * time.Second); err != nil {
		t.Errorf("after the cut: %v", err)
	}
	if err := echo.Close(); err != nil {
		t.Error(err)
	}
	if err := within(10 * time.Second); err == nil || isTimeout(err) {
		t.Errorf("after the end: %v", err)
	}
}

func TestSummarize(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name                       string
		rtt                        []time.Duration // of requests 20 ms apart
		lost                       int
		outage, trailing, min, max time.Duration
	}{
		{"none", nil, 0, 0, 0, 0, 0},
		{"all answered", []time.Duration{3 * ms, ms, 2 * ms}, 0, 20 * ms, 0, ms, 3 * ms},
		{"one lost", []time.Duration{ms, 0, ms}, 1, 40 * ms, 0, ms, ms},
		{"two gaps", []time.Duration{ms, 0, ms, 0, 0, ms, ms}, 3, 60 * ms, 0, ms, ms},
		{"lost at the beginning", []time.Duration{0, 0, ms, ms}, 2, 40 * ms, 0, ms, ms},
		{"lost at the end", []time.Duration{ms, 0, 0}, 2, 40 * ms, 40 * ms, ms, ms},
		{"all lost", []time.Duration{0, 0, 0}, 3, 40 * ms, 40 * ms, 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var sent []time.Time
			for i := range test.rtt {
				sent = append(sent, time.Unix(0, 0).Add(time.Duration(i)*20*ms))
			}
			got := summarize(sent, test.rtt)
			if answered := len(test.rtt) > test.lost; (got.First > 0) != answered {
				t.Errorf("first answer after %v", got.First)
			}
			if got.Lost() != test.lost || got.Outage != test.outage || got.Trailing != test.trailing || got.MinRTT != test.min || got.MaxRTT != test.max {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestClean(t *testing.T) {
	const ms = time.Millisecond
	start := time.Unix(0, 0)
	at := func(times ...time.Duration) (sent []time.Time) {
		for _, d := range times {
			sent = append(sent, start.Add(d))
		}
		return sent
	}
	tests := []struct {
		name string
		sent []time.Time
		rtt  []time.Duration
		want time.Duration
	}{
		{"none", nil, nil, 0},
		{"all answered", at(0, 20*ms, 40*ms), []time.Duration{ms, ms, ms}, 100 * ms},
		{"one lost", at(0, 20*ms, 40*ms), []time.Duration{ms, 0, ms}, 80 * ms},
		{"a young one", at(0, 20*ms, 140*ms), []time.Duration{ms, 0, 0}, 80 * ms},
		{"young ones", at(140*ms, 160*ms), []time.Duration{0, 0}, 0},
	}
	for _, test := range tests {
		if got := clean(test.sent, test.rtt, start.Add(100*ms)); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestBlocks(t *testing.T) {
	var bs blocks
	seen := make(map[netip.Addr]block)
	for i := range maxBlocks {
		b, ok := bs.take()
		if !ok {
			t.Fatalf("no block after %d", i)
		}
		for _, a := range []netip.Addr{nth(b.wan4(), 2).Addr(), nth(b.lan4(), 1).Addr(), nth(b.wan6(), 2).Addr(), nth(b.lan6(), 1).Addr(), nth(b.carrier6(), 1).Addr()} {
			if other, ok := seen[a]; ok {
				t.Fatalf("blocks %d and %d share %v", other, b, a)
			}
			seen[a] = b
		}
		if b.wan4().Contains(dns4) || b.lan4().Contains(dns4) || b.site6().Contains(dns6) {
			t.Errorf("block %d has the name server's address", b)
		}
		if !b.site6().Overlaps(b.lan6()) || !b.site6().Overlaps(b.carrier6()) {
			t.Errorf("block %d: its LAN is outside of its site", b)
		}
	}
	if _, ok := bs.take(); ok {
		t.Error("a block too many")
	}
	bs.give(7)
	bs.give(3)
	if b, ok := bs.take(); !ok || b != 7 {
		t.Errorf("took %d, want the one that was given back first", b)
	}
}
