//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/bench/report"
	"meshd/integration/lab"
)

// built builds meshd, once for all tests, into a folder that goes when they have run.
func built(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	builds = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "meshd-bench-test-") })
	build  = sync.OnceValues(func() (string, error) {
		dir, err := builds()
		if err != nil {
			return "", err
		}
		return lab.Build(context.Background(), dir, "meshd/cmd/meshd", "-trimpath")
	})
)

func TestMain(m *testing.M) {
	lab.Shim()
	if len(os.Args) > 1 && os.Args[1] == forwardCommand {
		if err := forward(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	code := m.Run()
	if dir, err := builds(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func TestParseIperf(t *testing.T) {
	const good = `{"start":{},"end":{"sum_sent":{"bytes":9,"bits_per_second":9},"sum_received":{"bytes":250000000,"bits_per_second":2000000000.5}}}`
	got, err := parseIperf([]byte(good))
	if want := (transfer{bytes: 25e7, mbits: 2000.0000005}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for name, text := range map[string]string{
		"an error": `{"start":{},"end":{},"error":"unable to connect to server"}`,
		"nothing":  ``,
		"no bytes": `{"end":{"sum_received":{"bytes":0,"bits_per_second":0}}}`,
		"half":     good[:40],
	} {
		if got, err := parseIperf([]byte(text)); err == nil {
			t.Errorf("%s was taken for %+v", name, got)
		}
	}
}

func TestParsePing(t *testing.T) {
	const out = `PING 10.99.0.2 (10.99.0.2) 56(84) bytes of data.
64 bytes from 10.99.0.2: icmp_seq=1 ttl=64 time=0.045 ms
64 bytes from 10.99.0.2: icmp_seq=2 ttl=64 time=12 ms
From 10.99.0.1 icmp_seq=3 Destination Host Unreachable
64 bytes from 10.99.0.2: icmp_seq=4 ttl=64 time=0.051 ms (DUP!)

--- 10.99.0.2 ping statistics ---
4 packets transmitted, 3 received, 25% packet loss, time 2ms
rtt min/avg/max/mdev = 0.045/4.032/12.0/0.1 ms
`
	if got, want := parsePing(out), []float64{0.045, 12, 0.051}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParseProcess(t *testing.T) {
	const text = `42 (a ) (b) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 20 30 20 0 1 0 1 2 3`
	got, err := parseProcess(text)
	if want := (process{pid: 42, parent: 7, own: 2 * time.Second, reaped: 500 * time.Millisecond}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42", "42 (a) S 7", "x (a) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 20 30", "1 )a( S"} {
		if _, err := parseProcess(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestParseMachine(t *testing.T) {
	got, err := parseMachine("cpu  100 10 50 9999 777 1 2 30 0 0\ncpu0 1 2 3\n")
	if want := (machineTime{busy: 1630 * time.Millisecond, stolen: 300 * time.Millisecond}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8 9", "cpu 1 2 3 4 5 6 7 x"} {
		if _, err := parseMachine(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestParsePeak(t *testing.T) {
	got, err := parsePeak("Name:\tmeshd\nVmPeak:\t  999 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n")
	if err != nil || got != 2<<20 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := parsePeak("Name:\tkthreadd\n"); err == nil {
		t.Error("a peak was found where there is none")
	}
}

// tree is: 1 (init) > 10 (us) > 11 > 12; 1 > 20 (another) > 21; 2 (kernel threads) > 30.
func tree() map[int]process {
	all := make(map[int]process)
	for _, p := range []process{
		{pid: 1},
		{pid: 2},
		{pid: 10, parent: 1},
		{pid: 11, parent: 10},
		{pid: 12, parent: 11},
		{pid: 20, parent: 1},
		{pid: 21, parent: 20},
		{pid: 30, parent: 2},
	} {
		p.own = time.Duration(p.pid) * time.Second
		all[p.pid] = p
	}
	return all
}

func TestUsage(t *testing.T) {
	if got := usage(tree(), []int{11, 99}); got != 23*time.Second {
		t.Errorf("got %v, want 11 s + 12 s", got)
	}
	if got := usage(tree(), nil); got != 0 {
		t.Errorf("of nobody: %v", got)
	}
}

// TestForeign holds that a process which ends between two looks is not forgotten, and that ours do not count.
func TestForeign(t *testing.T) {
	all := tree()
	before := foreign(all, 10)
	if before != 42*time.Second {
		t.Errorf("got %v, want 1 s + 20 s + 21 s", before)
	}
	parent := all[20]
	parent.reaped = all[21].own + 3*time.Second // it ran for 3 s more
	all[20] = parent
	delete(all, 21)
	own := all[12]
	own.own += time.Hour
	all[12] = own
	if got := foreign(all, 10) - before; got != 3*time.Second {
		t.Errorf("got %v, want 3 s", got)
	}
}

func TestDisturbance(t *testing.T) {
	from := snapshot{at: time.Unix(0, 0), foreign: time.Second}
	if got := (snapshot{at: time.Unix(2, 0), foreign: 2 * time.Second}).since(from).disturbance(); got != 0.5 {
		t.Errorf("got %v, want half a core", got)
	}
	if got := (snapshot{at: time.Unix(2, 0)}).since(from).disturbance(); got != 0 {
		t.Errorf("time that went with its process: %v", got)
	}
	if got := (cost{}).disturbance(); got != 0 {
		t.Errorf("of no time: %v", got)
	}
}

// TestSampleIsRepeated: a sample that others disturbed is measured again, as often as may be, and the least disturbed one kept.
func TestSampleIsRepeated(t *testing.T) {
	for _, c := range []struct {
		name        string
		disturbed   []float64 // cores that others use during each try
		budget      time.Duration
		value       float64 // the number of the try that is kept
		repeats     int
		failsAtLast bool
	}{
		{"quiet", []float64{0.05, 0}, time.Hour, 0, 0, false},
		{"quiet when repeated", []float64{0.5, 0.05, 0}, time.Hour, 1, 1, false},
		{"never quiet", []float64{0.5, 0.3, 0.4, 0}, time.Hour, 1, 2, false},
		{"no time left", []float64{0.5, 0}, 0, 0, 0, false},
		{"a repetition fails", []float64{0.5, 0}, time.Hour, 0, 0, true},
	} {
		m := &meter{plan: plan{repeats: 2}, budget: &budget{c.budget}}
		try := 0
		m.sample(t.Context(), c.name, func() (values, cost, error) {
			try++
			if c.failsAtLast && try == len(c.disturbed) {
				return nil, cost{}, errors.New("no")
			}
			foreign := time.Duration(c.disturbed[try-1] * float64(time.Second))
			return values{report.RTT: float64(try - 1)}, cost{wall: time.Second, foreign: foreign}, nil
		})
		if len(m.samples) != 1 || m.samples[0].Value != c.value || m.samples[0].Repeats != c.repeats || len(m.errs) != 0 {
			t.Errorf("%s: %+v, %v", c.name, m.samples, m.errs)
		}
	}
}

// path is a tunnel that carries so much, behind a sender that sends so much.
func path(carries, sends float64) (func(rate float64) flood, *int) {
	tries := 0
	return func(rate float64) flood {
		tries++
		sent := min(rate, sends)
		return flood{sent: int64(sent), arrived: int64(min(sent, carries)), wall: time.Second, rate: rate}
	}, &tries
}

func TestFastest(t *testing.T) {
	for _, c := range []struct {
		name                    string
		carries, sends          float64
		least, most             float64
		triesAtMost, triesLeast int
	}{
		{"below the first rate", 9_000, 1e9, 7_500, 9_000, 14, 4},
		{"above the first rate", 500_000, 1e9, 420_000, 505_000, 12, 5},
		{"faster than the sender", 1e9, 300_000, 300_000, 300_000, 6, 4},
		{"nothing passes", 0, 1e9, 0, 0, 30, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			try, tries := path(c.carries, c.sends)
			got := fastest(40_000, 2, try)
			if got < c.least || got > c.most {
				t.Errorf("got %v, want %v to %v", got, c.least, c.most)
			}
			if *tries > c.triesAtMost || *tries < c.triesLeast {
				t.Errorf("%d tries", *tries)
			}
		})
	}
}

func TestFastestForgivesOnePause(t *testing.T) {
	try, tries := path(100_000, 1e9)
	got := fastest(40_000, 2, func(rate float64) flood {
		f := try(rate)
		if *tries == 1 {
			f.arrived = 0
		}
		return f
	})
	if got < 79_000 {
		t.Errorf("got %v: a pause in the first try decided", got)
	}
}

func TestFlood(t *testing.T) {
	f := flood{sent: 90, arrived: 45, wall: time.Second, rate: 100}
	if f.loss() != 0.5 || math.Abs(f.shortfall()-0.55) > 1e-9 || f.kept() || f.received() != 45 {
		t.Errorf("loss %v, shortfall %v, kept %v, received %v", f.loss(), f.shortfall(), f.kept(), f.received())
	}
	f.drained = 3 * time.Second // what was held back
	if f.received() != 15 {
		t.Errorf("received %v a second, want 15", f.received())
	}
	if (flood{}).loss() != 1 {
		t.Error("nothing was sent, and nothing lost")
	}
}

func TestIsOffload(t *testing.T) {
	for feature, want := range map[string]bool{
		"tx-tcp-segmentation": true, "tx-udp-segmentation": true, "tx-checksum-ip-generic": true, "rx-gro": true, "tx-generic-segmentation": true,
		"tx-lockless": false, "tx-vlan-hw-insert": false, "loopback": false, "highdma": false,
	} {
		if got := isOffload(feature); got != want {
			t.Errorf("%s: %v", feature, got)
		}
	}
}

func TestListens(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1451 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0100007F:0016 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 2
`
	for port, want := range map[uint16]bool{iperfPort: true, 22: false, 1451: false} {
		if got := listens(table, port); got != want {
			t.Errorf("port %d: %v", port, got)
		}
	}
}

func TestParseArguments(t *testing.T) {
	c, err := parse([]string{"-quick", "-rounds", "5", "-nebula", "/x/nebula"})
	if err != nil || c.rounds != 1 || c.paths["nebula"] != "/x/nebula" || c.plots != c.out {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, bad := range [][]string{{"-rounds", "0"}, {"-duration", "10ms"}, {"more"}, {"-repeats", "-1"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestChoose(t *testing.T) {
	names := func(list string) []string {
		chosen, err := choose(list)
		if err != nil {
			return nil
		}
		var all []string
		for _, v := range chosen {
			all = append(all, v.Name())
		}
		return all
	}
	if got := names("meshd,veth"); !reflect.DeepEqual(got, []string{"meshd", "veth"}) {
		t.Errorf("got %v", got)
	}
	if got := names("veth,none"); got != nil {
		t.Errorf("a variant that does not exist was found: %v", got)
	}
	all := names("all")
	if usual := names(""); len(all) != len(usual)+4 || !slices.Contains(all, report.Relayed) || !slices.Contains(usual, "meshd") || !slices.Contains(all, report.Fitted) {
		t.Errorf("all are %v, the usual ones %v", all, usual)
	}
	if !slices.Contains(all, report.Baseline) {
		t.Errorf("%s is not among %v", report.Baseline, all)
	}
	slices.Sort(all)
	if len(slices.Compact(slices.Clone(all))) != len(all) {
		t.Errorf("a name twice: %v", all)
	}
}

func TestLastLine(t *testing.T) {
	for in, want := range map[string]string{"": "", "a": "a", "a\nb\n": "b", "a\n\n": "a"} {
		if got := lastLine([]byte(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestQuick runs the program: the veth pair and meshd, in one short round.
func TestQuick(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and TAPs")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	dir := t.TempDir()
	if err := run(ctx, []string{"-quick", "-variants", "veth,meshd", "-out", dir, "-meshd", built(t)}, &out); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir + "/result.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	result, err := report.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, variant := range []string{"veth", "meshd"} {
		for _, m := range []report.Metric{
			report.FirstPing, report.RTT, report.TCP(1, 4, true), report.TCP(4, 4, true), report.TCP(1, 6, true), report.Loss64, report.Rate64,
		} {
			if s, ok := result.Stat(variant, m); !ok || m != report.Loss64 && s.Median <= 0 {
				t.Errorf("%s: %s: %+v, %v", variant, m, s, ok)
			}
		}
	}
	if s, ok := result.Stat("meshd", report.CPU1); !ok || s.Median <= 0 {
		t.Errorf("CPU of meshd: %+v, %v", s, ok)
	}
	if s, ok := result.Stat("meshd", report.Memory); !ok || s.Median < 1 || s.Median > 64 { // its bound
		t.Errorf("memory of meshd: %+v, %v", s, ok)
	}
	if !strings.Contains(out.String(), "| meshd ") {
		t.Errorf("the tables have no row of meshd:\n%s", out.String())
	}
}

// TestOverTLS holds that the variant without UDP is what it says, and carries traffic.
func TestOverTLS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and TAPs")
	}
	v := &overTLS{}
	v.binary = built(t)
	p, err := newPair(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	tunnel, err := v.Start(ctx, p) // waits for TLS
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Hosts[0].Ping(ctx, tunnel.V6[1], 5, lab.PingOptions{Interval: 10 * time.Millisecond})
	if err != nil || s.Received == 0 {
		t.Errorf("%v, %v", s, err)
	}
}

// TestBetween holds that the variants with a third host are what they say: one member carries for the other two, and the least
// forwarder carries what meshd sends.
func TestBetween(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and TAPs")
	}
	var err error
	for _, relay := range []bool{true, false} {
		v := &between{relay: relay}
		v.binary = built(t)
		t.Run(v.Name(), func(t *testing.T) {
			m := &meter{plan: plan{tcp: time.Second, quick: true}, variant: v.Name(), budget: &budget{}}
			if m.pair, err = newPair(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := m.pair.Close(); err != nil {
					t.Error(err)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
			defer cancel()
			if m.tunnel, err = v.Start(ctx, m.pair); err != nil {
				t.Fatal(err)
			}
			if _, err := m.pair.Run(m.pair.Hosts[1], "iperf3", "-s"); err != nil {
				t.Fatal(err)
			}
			if err := awaitPort(ctx, m.pair.Hosts[1], iperfPort); err != nil {
				t.Fatal(err)
			}
			m.stream(ctx, 1, 4, true)
			r := report.Result{Samples: m.samples}
			for _, metric := range []report.Metric{report.TCP(1, 4, true), report.CPU1, report.CPUMiddle} {
				if s, ok := r.Stat(v.Name(), metric); !ok || s.Median <= 0 {
					t.Errorf("%s: %+v, %v; %v", metric, s, ok, m.errs)
				}
			}
		})
	}
}

// TestMembers holds that a node which knows a thousand members is no larger than it may be.
func TestMembers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and TAPs")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	got, err := crowd(ctx, built(t), 1000, 10*time.Second, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", *got)
	if got.MemoryMB < 1 || got.MemoryMB > 64 {
		t.Errorf("%.1f MiB with 1,000 members, want at most 64", got.MemoryMB)
	}
}

// TestOffloadsOff holds that the row without offloads is what it says: the kernel hands over single segments.
func TestOffloadsOff(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	const header = 14
	if with, without := meanFrame(t, true), meanFrame(t, false); with < 3*1500 || without > header+1500 {
		t.Errorf("TCP over the veth has frames of %.0f bytes on average with offloads, and of %.0f without", with, without)
	}
}

// meanFrame is the average size of the frames that a TCP stream over the veth is sent in.
func meanFrame(t *testing.T, offloads bool) float64 {
	t.Helper()
	p, err := newPair(t.Context(), offloads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.Run(p.Hosts[1], "iperf3", "-s"); err != nil {
		t.Fatal(err)
	}
	if err := awaitPort(t.Context(), p.Hosts[1], iperfPort); err != nil {
		t.Fatal(err)
	}
	sent := func() (frames, bytes uint64) {
		if err := p.Hosts[0].Do(func() error {
			link, err := netlink.LinkByName(wire)
			if err == nil {
				frames, bytes = link.Attrs().Statistics.TxPackets, link.Attrs().Statistics.TxBytes
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return frames, bytes
	}
	frames, bytes := sent()
	if _, err := iperf(t.Context(), p.Hosts[0], under[1].v4.Addr(), 1, 1, false); err != nil {
		t.Fatal(err)
	}
	framesAfter, bytesAfter := sent()
	if framesAfter == frames {
		t.Fatal("nothing was sent")
	}
	return float64(bytesAfter-bytes) / float64(framesAfter-frames)
}
