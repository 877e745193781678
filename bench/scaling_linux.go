package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"meshd/bench/hotpath"
	"meshd/bench/report"
	"meshd/l2"
)

const (
	scaleRounds = 5
	scaleFrames = 12_800 // of a sample
	scaleBatch  = 64
	scalePay    = 64 // bytes of payload
)

// scaling is what frames cost as the mesh and the machine grow.
type scaling struct {
	Machine report.Machine `json:"machine"`
	Frame   []report.Curve `json:"frame"` // CPU time of a node by frame, in ns
	Cores   []report.Curve `json:"cores"` // TCP through two nodes on so many cores, in Mbit/s
}

// runScaling is `bench -scaling`.
func runScaling(ctx context.Context, c *config, out io.Writer) error {
	s := &scaling{Machine: machine(ctx)}
	began := time.Now()
	for _, measure := range []func(context.Context) ([]report.Curve, error){knownMembers, sessions, stations} {
		curves, err := measure(ctx)
		if err != nil {
			return err
		}
		s.Frame = append(s.Frame, curves...)
	}
	var err error
	if s.Cores, err = cores(ctx, c); err != nil {
		return err
	}
	s.Machine.Seconds = time.Since(began).Seconds()
	return s.publish(c, out)
}

// publish writes JSON, tables and pictures.
func (s *scaling) publish(c *config, out io.Writer) error {
	if err := errors.Join(os.MkdirAll(c.out, 0o755), os.MkdirAll(c.plots, 0o755)); err != nil {
		return err
	}
	encode := func(w io.Writer) error { return json.NewEncoder(w).Encode(s) }
	if err := create(filepath.Join(c.out, "scaling.json"), encode); err != nil {
		return err
	}
	if err := report.CurveTable(out, "CPU ns per frame", s.Frame); err != nil {
		return err
	}
	if err := report.CurveTable(out, "TCP, Mbit/s, by cores", s.Cores); err != nil {
		return err
	}
	picture, err := report.CurveSVG("CPU time of a node for a frame with 64 bytes of UDP", "members, sessions, stations", "ns", s.Frame)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.plots, "scaling.svg"), []byte(picture), 0o644)
}

// perFrame is ns for each of so many frames.
func perFrame(used time.Duration, frames int) float64 {
	return float64(used.Nanoseconds()) / float64(frames)
}

// to makes frames from one node's host to others, in turn.
func to(dsts []l2.MAC, from l2.MAC, n int) []l2.Frame {
	all := make([]l2.Frame, n)
	for i := range all {
		all[i] = hotpath.Datagram(dsts[i%len(dsts)], from, uint16(1024+i%256), scalePay)
	}
	return all
}

// outOf sends frames batch by batch and returns the cost of one.
func outOf(r *hotpath.Rig, frames []l2.Frame) float64 {
	var used time.Duration
	for i := 0; i < len(frames); i += scaleBatch {
		used += r.OutCPU(frames[i:min(i+scaleBatch, len(frames))], 1)
	}
	return perFrame(used, len(frames))
}

// knownMembers: traffic with one member, while the node knows so many.
func knownMembers(ctx context.Context) ([]report.Curve, error) {
	send, receive := report.Curve{Name: "out, by members known", Unit: "ns"}, report.Curve{Name: "in, by members known", Unit: "ns"}
	for _, n := range []int{10, 100, 1000, 5000} {
		log.Printf("scaling: %d members known", n)
		r, err := hotpath.New(ctx, 2)
		if err != nil {
			return nil, err
		}
		if err := r.Know(n - 2); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		out := to([]l2.MAC{r.Nodes[1].MAC}, r.Nodes[0].MAC, scaleFrames)
		in := to([]l2.MAC{r.Nodes[0].MAC}, r.Nodes[1].MAC, scaleFrames)
		var outs, ins []float64
		for range scaleRounds {
			outs = append(outs, outOf(r, out))
			used, count := r.InCPU(map[int][]l2.Frame{1: in})
			ins = append(ins, perFrame(used, count))
		}
		send.Add(n, outs...)
		receive.Add(n, ins...)
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return []report.Curve{send, receive}, nil
}

// sessions: each frame goes to, or comes from, another of so many members, and a broadcast goes to all.
func sessions(ctx context.Context) ([]report.Curve, error) {
	send, receive := report.Curve{Name: "out, each to another of the sessions", Unit: "ns"}, report.Curve{Name: "in, each from another", Unit: "ns"}
	flood := report.Curve{Name: "broadcast, by copy", Unit: "ns"}
	for _, n := range []int{10, 100, 1000} {
		log.Printf("scaling: %d sessions", n)
		r, err := hotpath.New(ctx, n+1)
		if err != nil {
			return nil, err
		}
		var members []l2.MAC
		back := map[int][]l2.Frame{}
		for i, node := range r.Nodes[1:] {
			members = append(members, node.MAC)
			back[i+1] = to([]l2.MAC{r.Nodes[0].MAC}, node.MAC, max(1, scaleFrames/n))
		}
		out := to(members, r.Nodes[0].MAC, scaleFrames)
		all := to([]l2.MAC{{255, 255, 255, 255, 255, 255}}, r.Nodes[0].MAC, max(1, scaleFrames/n))
		var outs, ins, floods []float64
		for range scaleRounds {
			outs = append(outs, outOf(r, out))
			floods = append(floods, outOf(r, all)/float64(n))
			used, count := r.InCPU(back)
			ins = append(ins, perFrame(used, count))
		}
		send.Add(n, outs...)
		receive.Add(n, ins...)
		flood.Add(n, floods...)
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return []report.Curve{send, receive, flood}, nil
}

// stations: frames to, and from, hosts behind bridges, each another of so many.
func stations(ctx context.Context) ([]report.Curve, error) {
	send := report.Curve{Name: "out, each to another station", Unit: "ns"}
	for _, n := range []int{10, 100, 1000, 10_000, 30_000} {
		log.Printf("scaling: %d stations", n)
		r, err := hotpath.New(ctx, 1+(n+l2.BridgeMaxMACs-1)/l2.BridgeMaxMACs)
		if err != nil {
			return nil, err
		}
		macs := make([]l2.MAC, n)
		for i := range macs {
			macs[i] = l2.MAC{0x0a, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
			r.Learn(1+i/l2.BridgeMaxMACs, macs[i])
		}
		if got := r.Stations(); got < n {
			return nil, errors.Join(fmt.Errorf("%d of %d stations were learned", got, n), r.Close())
		}
		// Batches stay with one member, so that stations are what differs.
		frames := make([]l2.Frame, 0, scaleFrames)
		source := rand.New(rand.NewPCG(1, uint64(n)))
		for len(frames) < scaleFrames {
			first := source.IntN(n) / l2.BridgeMaxMACs * l2.BridgeMaxMACs
			behind := min(l2.BridgeMaxMACs, n-first)
			for range scaleBatch {
				frames = append(frames, hotpath.Datagram(macs[first+source.IntN(behind)], r.Nodes[0].MAC, 1024, scalePay))
			}
		}
		var outs []float64
		for range scaleRounds {
			outs = append(outs, outOf(r, frames))
		}
		send.Add(n, outs...)
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return []report.Curve{send}, nil
}

// cores measures TCP through meshd with everything, iperf3 too, on one core, two and so on.
func cores(ctx context.Context, c *config) ([]report.Curve, error) {
	dir, err := os.MkdirTemp("", "meshd-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	m := &meshd{}
	if err := m.Find(ctx, &Tools{Dir: dir, Install: c.install, Paths: c.paths}); err != nil {
		return nil, err
	}
	var curves []report.Curve
	for _, name := range []string{"1 stream", "4 streams"} {
		curves = append(curves, report.Curve{Name: name, Unit: "Mbit/s"})
	}
	var counts []int
	for n := 1; n <= runtime.NumCPU(); n *= 2 {
		counts = append(counts, n)
	}
	values := make([][2][]float64, len(counts))
	for range scaleRounds { // in turn, so that what drifts in the machine hits all alike
		for at, n := range counts {
			got, err := onCores(ctx, c, m, n)
			if err != nil {
				return nil, err
			}
			for i := range curves {
				values[at][i] = append(values[at][i], got[i])
			}
		}
	}
	for at, n := range counts {
		for i := range curves {
			curves[i].Add(n, values[at][i]...)
		}
	}
	return curves, nil
}

// onCores is tcpOnce on so many cores.
func onCores(ctx context.Context, c *config, m *meshd, n int) (mbits [2]float64, err error) {
	log.Printf("scaling: %d cores", n)
	if err := restrict(n); err != nil {
		return mbits, err
	}
	defer func() { err = errors.Join(err, restrict(runtime.NumCPU())) }()
	return tcpOnce(ctx, c, m)
}

// tcpOnce starts the nodes and measures one stream and four.
func tcpOnce(ctx context.Context, c *config, m *meshd) (mbits [2]float64, err error) {
	pair, err := newPair(ctx, true)
	if err != nil {
		return mbits, err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, startTimeout+4*c.duration)
	defer cancel()
	tunnel, err := m.Start(ctx, pair)
	if err != nil {
		return mbits, err
	}
	if _, err := pair.Run(pair.Hosts[1], "iperf3", "-s"); err != nil {
		return mbits, err
	}
	if err := awaitPort(ctx, pair.Hosts[1], iperfPort); err != nil {
		return mbits, err
	}
	for i, streams := range []int{1, 4} {
		t, err := iperf(ctx, pair.Hosts[0], tunnel.V4[1], streams, int(c.duration.Seconds()), false)
		if err != nil {
			return mbits, err
		}
		mbits[i] = t.mbits
	}
	return mbits, nil
}

// restrict puts this process, and what it starts from now on, onto so many cores.
func restrict(cores int) error {
	var set unix.CPUSet
	for i := range cores {
		set.Set(i)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("restrict to %d cores: %w", cores, err)
		}
	}
	return nil
}
