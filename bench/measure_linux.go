package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/bench/report"
	"meshd/integration/lab"
)

// Limits of a sample.
const (
	startTimeout = 30 * time.Second
	pacedRate    = 100_000
	iperfPort    = 5201
	gigabyte     = 1e9
)

// plan says how much is measured.
type plan struct {
	tcp     time.Duration // of a TCP sample
	steady  time.Duration // of pings without load, and of UDP at a given rate
	udp     time.Duration // of a step when a rate is looked for
	repeats int           // of a disturbed sample, at most
	quick   bool          // the least that shows that all works
}

// meter measures one tunnel.
type meter struct {
	plan    plan
	pair    *Pair
	tunnel  *Tunnel
	variant string
	round   int
	off     bool // the veth's offloads are off
	budget  *budget
	samples []report.Sample
	errs    []error
}

// budget is how much time all repeats together may take.
type budget struct{ left time.Duration }

// values is what one sample has brought.
type values map[report.Metric]float64

// measure starts a variant on a new pair of hosts and measures it. What fails is returned beside what did not.
func measure(ctx context.Context, v Variant, m *meter) ([]report.Sample, error) {
	m.variant = v.Name()
	pair, err := newPair(ctx, !m.off)
	if err != nil {
		return nil, err
	}
	m.pair = pair
	err = m.run(ctx, v)
	if err != nil {
		err = fmt.Errorf("%s: %w", v.Name(), err)
	}
	return m.samples, errors.Join(err, pair.Close())
}

func (m *meter) run(ctx context.Context, v Variant) (err error) {
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if m.tunnel, err = v.Start(startCtx, m.pair); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	first, err := m.firstPing(startCtx, m.tunnel.V4[1])
	if err != nil {
		return fmt.Errorf("wait for first ping: %w\n%s", err, m.pair.Logs())
	}
	if _, err := m.pair.Run(m.pair.Hosts[1], "iperf3", "-s"); err != nil {
		return err
	}
	if err := awaitPort(startCtx, m.pair.Hosts[1], iperfPort); err != nil {
		return err
	}
	if m.off {
		m.tcpOff(ctx)
		return errors.Join(m.errs...)
	}
	m.add(report.FirstPing, first.Seconds(), 0, 0)
	m.roundTrips(ctx)
	m.tcp(ctx)
	m.udp(ctx)
	m.memory()
	return errors.Join(m.errs...)
}

// firstPing pings until there is an answer, and returns how long that was after the last program's start.
func (m *meter) firstPing(ctx context.Context, to netip.Addr) (time.Duration, error) {
	pinger, err := m.pair.Hosts[0].Pinger(to, lab.PingOptions{Interval: 10 * time.Millisecond, Linger: time.Millisecond})
	if err != nil {
		return 0, err
	}
	err = poll(ctx, func() bool { return pinger.Stats().Received > 0 })
	took := time.Since(m.pair.Began)
	return took, errors.Join(err, pinger.Close())
}

func (m *meter) add(metric report.Metric, value, foreign float64, repeats int) {
	if m.off {
		metric = report.Off(metric)
	}
	m.samples = append(m.samples, report.Sample{Variant: m.variant, Metric: metric, Round: m.round, Value: value, Foreign: foreign, Repeats: repeats})
}

// sample runs one measurement, again while others disturb it, and keeps the least disturbed.
func (m *meter) sample(ctx context.Context, what string, do func() (values, cost, error)) {
	least, repeats := math.Inf(1), 0
	var best values
	for n := 0; n <= m.plan.repeats; n++ {
		began := time.Now()
		got, used, err := do()
		if err != nil {
			if best == nil {
				m.errs = append(m.errs, fmt.Errorf("%s: %w", what, err))
			}
			break
		}
		if used.disturbance() < least {
			least, best = used.disturbance(), got
		}
		repeats = n
		took := time.Since(began)
		if least < report.Quiet || m.budget.left < took || ctx.Err() != nil {
			break
		}
		m.budget.left -= took
	}
	for _, metric := range slices.Sorted(maps.Keys(best)) {
		m.add(metric, best[metric], least, repeats)
	}
}

// during takes snapshots around what it runs.
func (m *meter) during(run func() error) (cost, error) {
	roots, middle := m.tunnel.all(), m.tunnel.Middle
	before, err := takeSnapshot(roots, middle)
	if err != nil {
		return cost{}, err
	}
	if err := run(); err != nil {
		return cost{}, err
	}
	after, err := takeSnapshot(roots, middle)
	return after.since(before), err
}

func (m *meter) roundTrips(ctx context.Context) {
	a, to := m.pair.Hosts[0], m.tunnel.V4[1]
	m.sample(ctx, "idle RTT", func() (values, cost, error) {
		var all []float64
		used, err := m.during(func() (err error) { all, err = ping(ctx, a, to, m.plan.steady); return err })
		slices.Sort(all)
		return values{report.RTT: report.Quantile(all, 0.5), report.RTT99: report.Quantile(all, 0.99)}, used, err
	})
	if m.plan.quick {
		return
	}
	m.sample(ctx, "RTT under load", func() (values, cost, error) {
		var all []float64
		used, err := m.during(func() error {
			done := make(chan error, 1)
			go func() {
				_, err := iperf(ctx, a, to, 1, m.seconds(), false)
				done <- err
			}()
			var err error
			all, err = ping(ctx, a, to, m.plan.tcp-200*time.Millisecond)
			return errors.Join(err, <-done)
		})
		slices.Sort(all)
		return values{report.RTTLoad: report.Quantile(all, 0.5)}, used, err
	})
}

func (m *meter) seconds() int { return max(1, int(m.plan.tcp.Round(time.Second)/time.Second)) }

// tcp runs 1 and 4 streams, IPv4 and IPv6, both ways.
func (m *meter) tcp(ctx context.Context) {
	for _, version := range []int{4, 6} {
		if version == 6 && !m.carriesV6(ctx) {
			continue
		}
		for _, streams := range []int{1, 4} {
			for _, ab := range []bool{true, false} {
				if m.plan.quick && (!ab || version == 6 && streams == 4) {
					continue
				}
				m.stream(ctx, streams, version, ab)
			}
		}
	}
}

func (m *meter) tcpOff(ctx context.Context) {
	m.stream(ctx, 1, 4, true)
	m.stream(ctx, 4, 4, true)
}

// carriesV6 waits a little for an answer over IPv6.
func (m *meter) carriesV6(ctx context.Context) bool {
	to := m.tunnel.V6[1]
	if !to.IsValid() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := m.firstPing(ctx, to); err != nil {
		m.errs = append(m.errs, fmt.Errorf("no IPv6: %w", err))
		return false
	}
	return true
}

func (m *meter) stream(ctx context.Context, streams, version int, ab bool) {
	to := m.tunnel.V4[1]
	if version == 6 {
		to = m.tunnel.V6[1]
	}
	metric := report.TCP(streams, version, ab)
	m.sample(ctx, string(metric), func() (values, cost, error) {
		var t transfer
		used, err := m.during(func() (err error) {
			t, err = iperf(ctx, m.pair.Hosts[0], to, streams, m.seconds(), !ab)
			return err
		})
		if err != nil {
			return nil, used, err
		}
		v := values{metric: t.mbits}
		if version == 4 {
			perGB := gigabyte / t.bytes
			cpu, machine := report.CPU1, report.Machine1
			if streams == 4 {
				cpu, machine = report.CPU4, ""
			}
			if len(m.tunnel.all()) > 0 {
				v[cpu] = used.tunnel.Seconds() * perGB
			}
			if len(m.tunnel.Middle) > 0 && streams == 1 {
				v[report.CPUMiddle] = used.middle.Seconds() * perGB
			}
			if machine != "" {
				v[machine] = used.machine.Seconds() * perGB
			}
		}
		return v, used, nil
	})
}

// udp measures small datagrams, and large ones that fit and that do not.
func (m *meter) udp(ctx context.Context) {
	f, err := newFlooder(m.pair.Hosts[0], m.pair.Hosts[1], m.tunnel.V4[1])
	if err != nil {
		m.errs = append(m.errs, err)
		return
	}
	f.send(ctx, 64, 1000, 50*time.Millisecond) // neighbours and sessions are known from here on
	m.sample(ctx, "paced UDP", func() (values, cost, error) {
		var got flood
		used, err := m.during(func() error { got = f.send(ctx, 64, pacedRate, m.plan.steady); return nil })
		v := values{report.Loss64: 100 * got.shortfall()}
		if len(m.tunnel.all()) > 0 && got.arrived > 0 {
			v[report.CPU64] = used.tunnel.Seconds() * 1e6 / float64(got.arrived)
		}
		return v, used, err
	})
	for _, search := range []struct {
		metric report.Metric
		size   int
		unit   float64 // of the metric, per datagram
	}{
		{report.Rate64, 64, 1e-3},
		{report.UDP1200, 1200, 1200 * 8e-6},
		{report.UDP1472, 1472, 1472 * 8e-6},
	} {
		m.sample(ctx, string(search.metric), func() (values, cost, error) {
			rate := 0.0
			used, err := m.during(func() error {
				rate = fastest(40_000, 2, func(rate float64) flood { return f.send(ctx, search.size, rate, m.plan.udp) })
				return nil
			})
			return values{search.metric: rate * search.unit}, used, err
		})
		if m.plan.quick {
			break
		}
	}
	if err := f.Close(); err != nil {
		m.errs = append(m.errs, err)
	}
}

// memory is that of the larger node.
func (m *meter) memory() {
	most := int64(0)
	for _, pids := range m.tunnel.PIDs {
		if len(pids) == 0 {
			return
		}
		peak, err := peakMemory(pids)
		if err != nil {
			m.errs = append(m.errs, err)
			return
		}
		most = max(most, peak)
	}
	m.add(report.Memory, float64(most)/(1<<20), 0, 0)
}

// describe sums up what was measured, for the eye.
func describe(samples []report.Sample) string {
	var parts []string
	for _, s := range samples {
		switch s.Metric {
		case report.TCP(1, 4, true), report.TCP(4, 4, true), report.CPU1, report.RTT, report.Loss64, report.Rate64, report.UDP1472, report.Memory,
			report.Off(report.TCP(1, 4, true)), report.FirstPing:
			parts = append(parts, fmt.Sprintf("%s %.3g %s", s.Metric, s.Value, s.Metric.Unit()))
		}
	}
	return strings.Join(parts, ", ")
}
