package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"meshd/bench/report"
)

const (
	// soakStreams of TCP go each way, with windows so small that all of them together fit into the queues on the way (a TAP's
	// is 1,000 frames of up to 64 KB): at full rate, and yet nothing has to be dropped.
	soakStreams = "2"
	soakWindow  = "256K"
	// soakRate is that of the numbered datagrams each way, a second: far below what the tunnel takes beside TCP.
	soakRate = 1000
	// soakSettle is what memory may grow by in the second half, besides a tenth.
	soakSettle = 4.0 // MiB
	// soakLate is what share of datagrams may be overtaken, and of TCP's segments arrive out of order: the host's own network
	// stack changes order when a process moves to another core while packets of it still wait on the first. A lost segment
	// puts all that follow it out of order, so that this bounds losses of TCP as well. (What TCP has sent again does not:
	// on a machine without time for it, timeouts send again what was only late.)
	soakLate, soakOutOfOrder = 1e-3, 1e-5
	// soakFew is how many that may be in a short soak.
	soakFew = 20
)

// soakSizes are those of the numbered datagrams, in turn: small ones, and one that crosses in two pieces.
var soakSizes = []int{64, 200, 64, 1000, 64, 1472}

// soakWay is one direction of the numbered datagrams in a soak.
type soakWay struct {
	From string `json:"from"`
	Sent int64  `json:"sent"`
	arrivals
}

// lost is how many did not arrive.
func (w *soakWay) lost() int64 { return w.Sent - w.Arrived }

// soakResult is what a soak has found.
type soakResult struct {
	Machine  report.Machine `json:"machine"`
	Seconds  float64        `json:"seconds"`
	TCPMbits [2]float64     `json:"tcp_mbits"` // each way
	Ways     []*soakWay     `json:"numbered"`
	Nodes    []*soakNode    `json:"nodes"`
	Failures []string       `json:"failures"`

	numbered []*numbered
}

func (r *soakResult) fail(format string, args ...any) {
	r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
}

// soak runs TCP at full rate and numbered datagrams both ways through meshd for so long, and looks at the nodes meanwhile.
func soak(ctx context.Context, m *meshd, d time.Duration, rekeys int) (r *soakResult, err error) {
	began := time.Now()
	pair, err := newPair(ctx, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tunnel, err := m.Start(startCtx, pair)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	meter := &meter{pair: pair, tunnel: tunnel}
	for _, to := range tunnel.V4 { // neighbours and the session are known from here on
		from := pair.Hosts[0]
		if to == tunnel.V4[0] {
			from = pair.Hosts[1]
		}
		if _, err := ping(startCtx, from, to, 0); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, pair.Logs())
		}
	}
	r = &soakResult{Machine: machine(ctx)}
	for i, node := range m.nodes {
		n := &soakNode{node: node}
		if n.drops, err = queueDrops(pair.Hosts[i]); err != nil {
			return nil, err
		}
		if n.tcp, err = tcpCounters(pair.Hosts[i]); err != nil {
			return nil, err
		}
		r.Nodes = append(r.Nodes, n)
	}
	if err := r.load(ctx, meter, d); err != nil {
		return nil, err
	}
	for i, n := range r.Nodes {
		if err := n.finish(pair.Hosts[i]); err != nil {
			return nil, err
		}
	}
	r.Seconds = time.Since(began).Seconds()
	r.judge(rekeys)
	return r, ctx.Err()
}

// load is the traffic, with a look at the nodes now and then.
func (r *soakResult) load(ctx context.Context, m *meter, d time.Duration) error {
	hosts := m.pair.Hosts
	if _, err := m.pair.Run(hosts[1], "iperf3", "-s"); err != nil {
		return err
	}
	if err := awaitPort(ctx, hosts[1], iperfPort); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var senders, receivers sync.WaitGroup
	for i := range hosts {
		n, err := newNumbered(hosts[i], hosts[1-i], m.tunnel.V4[1-i], soakRate, soakSizes)
		if err != nil {
			return err
		}
		r.numbered = append(r.numbered, n)
		receivers.Go(n.receive)
		senders.Go(func() { n.send(ctx) })
	}
	flood := make(chan error, 1)
	go func() { flood <- r.tcp(ctx, m, d) }()
	look := time.NewTicker(max(500*time.Millisecond, d/720))
	defer look.Stop()
	var err error
	for running := true; running; {
		select {
		case err = <-flood:
			running = false
		case <-look.C:
			for _, n := range r.Nodes {
				n.look(ctx)
			}
		}
	}
	cancel()
	senders.Wait()
	time.Sleep(udpLinger) // what is under way arrives; what does not counts as lost
	for i, n := range r.numbered {
		r.Ways = append(r.Ways, &soakWay{From: hosts[i].Name(), Sent: n.sent.Load(), arrivals: n.result()})
		n.close()
	}
	receivers.Wait()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, m.pair.Logs())
	}
	return nil
}

// tcp runs iperf3 both ways.
func (r *soakResult) tcp(ctx context.Context, m *meter, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d+time.Minute)
	defer cancel()
	cmd := m.pair.Hosts[0].Command(ctx, "iperf3", "-J", "-i", "0", "-c", m.tunnel.V4[1].String(), "-t", strconv.Itoa(int(d.Seconds())),
		"--bidir", "-P", soakStreams, "-w", soakWindow, "-C", "cubic", "--connect-timeout", "3000")
	out, err := cmd.Output()
	var doc struct {
		Error string `json:"error"`
		End   struct {
			There struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			Back struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received_bidir_reverse"`
		} `json:"end"`
	}
	if jsonErr := json.Unmarshal(out, &doc); jsonErr != nil {
		return fmt.Errorf("iperf3: %w", errors.Join(err, jsonErr))
	}
	if doc.Error != "" {
		return errors.New("iperf3: " + doc.Error)
	}
	r.TCPMbits = [2]float64{doc.End.There.Bits / 1e6, doc.End.Back.Bits / 1e6}
	return nil
}

// judge says what must not be.
func (r *soakResult) judge(rekeys int) {
	var dropped int64
	for _, n := range r.Nodes {
		dropped += n.Drops.sum()
	}
	for _, w := range r.Ways {
		if w.Sent == 0 || w.lost() > dropped {
			r.fail("from %s: %d of %d datagrams lost, and only %d drops counted in queues", w.From, w.lost(), w.Sent, dropped)
		}
		if w.Twice > 0 || w.Wrong > 0 {
			r.fail("from %s: %d datagrams arrived twice, %d not as they were sent", w.From, w.Twice, w.Wrong)
		}
		if float64(w.Late) > soakLate*float64(w.Sent) {
			r.fail("from %s: %d of %d datagrams were overtaken", w.From, w.Late, w.Sent)
		}
	}
	for i, mbits := range r.TCPMbits {
		if mbits <= 0 {
			r.fail("nothing was received by TCP, direction %d", i)
		}
	}
	for _, n := range r.Nodes {
		name := n.node.Host.Name()
		if late, all := n.TCP["TcpExt: TCPOFOQueue"], n.TCP["Tcp: OutSegs"]; float64(late) > soakOutOfOrder*float64(all)+float64(dropped)+soakFew {
			r.fail("host %s: %d of %d segments of TCP came out of order, and only %d drops counted in queues", name, late, all, dropped)
		}
		if len(n.Complaints) > 0 {
			r.fail("node %s: %s", name, strings.Join(n.Complaints, "; "))
		}
		if n.Rekeys < rekeys {
			r.fail("node %s: %d rekeys seen, %d expected", name, n.Rekeys, rekeys)
		}
		if early, late := middle(n.MemoryMB), end(n.MemoryMB); late > 1.1*early+soakSettle {
			r.fail("node %s: memory grew from %.1f MiB to %.1f", name, early, late)
		}
		for _, count := range [][]int{n.Files, n.Threads} {
			if len(count) > 4 && slices.Max(count) > slices.Max(count[:len(count)/2])+3 {
				r.fail("node %s: files or threads keep growing: %v", name, count)
			}
		}
		if n.PeakMB <= 0 || n.PeakMB > 64 {
			r.fail("node %s: %.1f MiB of memory", name, n.PeakMB)
		}
	}
}

// middle is the median of the second quarter, when caches and pools have filled.
func middle(all []float64) float64 { return quarter(all, 1) }

// end is that of the last.
func end(all []float64) float64 { return quarter(all, 3) }

func quarter(all []float64, n int) float64 {
	part := slices.Sorted(slices.Values(all[len(all)*n/4 : len(all)*(n+1)/4]))
	if len(part) == 0 {
		return math.NaN()
	}
	return report.Quantile(part, 0.5)
}

// runSoak is `bench -soak D`.
func runSoak(ctx context.Context, c *config, out io.Writer) error {
	dir, err := os.MkdirTemp("", "meshd-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tools := &Tools{Dir: dir, Install: c.install, Paths: c.paths}
	if err := errors.Join(tools.Package(ctx, "iperf3", "iperf3"), tools.Package(ctx, "iputils-ping", "ping")); err != nil {
		return err
	}
	m := &meshd{}
	if err := m.Find(ctx, tools); err != nil {
		return err
	}
	const rekeyEvery = 120 * time.Second
	log.Printf("soak: %v", c.soak)
	r, err := soak(ctx, m, c.soak, int(c.soak/rekeyEvery)*9/10)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.out, 0o755); err != nil {
		return err
	}
	if err := create(filepath.Join(c.out, "soak.json"), r.write); err != nil {
		return err
	}
	r.print(out)
	if len(r.Failures) > 0 {
		return errors.New("soak: " + strings.Join(r.Failures, "; "))
	}
	return nil
}

func (r *soakResult) write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// print sums up.
func (r *soakResult) print(out io.Writer) {
	fmt.Fprintf(out, "%s, %.0f s: TCP %.0f and %.0f Mbit/s at once\n", r.Machine.Revision, r.Seconds, r.TCPMbits[0], r.TCPMbits[1])
	for _, w := range r.Ways {
		fmt.Fprintf(out, "from %s: %d numbered datagrams, %d lost, %d twice, %d overtaken, %d changed, longest pause %.0f ms\n",
			w.From, w.Sent, w.lost(), w.Twice, w.Late, w.Wrong, 1000*w.LongestS)
	}
	for _, n := range r.Nodes {
		fmt.Fprintf(out, "node %s: %d rekeys, memory %.1f MiB, %.1f in the end, peak %.1f, %d files, %d threads; drops %v; %v\n",
			n.node.Host.Name(), n.Rekeys, middle(n.MemoryMB), end(n.MemoryMB), n.PeakMB, last(n.Files), last(n.Threads), n.Drops, n.TCP)
	}
	for _, f := range r.Failures {
		fmt.Fprintln(out, "FAILED:", f)
	}
}

func last(all []int) int {
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1]
}
