//go:build linux

package main

import (
	"bytes"
	"context"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// TestSoak is a short soak with keys that are replaced as soon as WireGuard's timers allow it, every 5 s.
func TestSoak(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and TAPs")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	binary, err := lab.Build(ctx, t.TempDir(), "meshd/cmd/meshd", "-trimpath", "-tags", "shortkeys")
	if err != nil {
		t.Fatal(err)
	}
	r, err := soak(ctx, &meshd{binary: binary}, 15*time.Second, 2)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r.print(&out)
	t.Log(out.String())
	for _, f := range r.Failures {
		t.Error(f)
	}
	if len(r.Ways) != 2 || len(r.Nodes) != 2 {
		t.Errorf("%d ways, %d nodes", len(r.Ways), len(r.Nodes))
	}
}

func TestArrivals(t *testing.T) {
	var a arrivals
	at := time.Unix(0, 0)
	for i, n := range []uint64{0, 1, 3, 2, 3, 130, 5} {
		a.note(n, at.Add(time.Duration(i*i)*time.Second))
	}
	a.seen, a.last = nil, time.Time{}
	if want := (arrivals{Arrived: 6, Twice: 1, Late: 2, LongestS: 11, next: 131}); !reflect.DeepEqual(a, want) {
		t.Errorf("got %+v, want %+v", a, want)
	}
}

func TestIntact(t *testing.T) {
	n := &numbered{sizes: soakSizes}
	for i := range uint64(20) {
		b := make([]byte, soakSizes[i%uint64(len(soakSizes))])
		fill(b, i)
		if !n.intact(b, i) {
			t.Errorf("number %d is not as it was sent", i)
		}
		b[len(b)-1]++
		if n.intact(b, i) || n.intact(b[:len(b)-1], i) {
			t.Errorf("number %d was taken, changed or cut", i)
		}
	}
}

func TestParseSNMP(t *testing.T) {
	const text = `Ip: Forwarding InDiscards
Ip: 1 7
Udp: InDatagrams RcvbufErrors
Udp: 10 -3
Udp6RcvbufErrors                	4
`
	want := counters{"Ip: Forwarding": 1, "Ip: InDiscards": 7, "Udp: InDatagrams": 10, "Udp: RcvbufErrors": -3, "Udp6RcvbufErrors": 4}
	if got := parseSNMP(text); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	parseSNMP("Ip: A B\nIp: 1\nTcp:\n: :\n")
}

// TestJudge holds that each thing that must not be is found.
func TestJudge(t *testing.T) {
	good := func() *soakResult {
		r := &soakResult{TCPMbits: [2]float64{100, 100}}
		for range 2 {
			r.Ways = append(r.Ways, &soakWay{From: "a", Sent: 1000, arrivals: arrivals{Arrived: 1000}})
			r.Nodes = append(r.Nodes, &soakNode{
				node: &lab.Node{Host: &lab.Host{}}, Rekeys: 5, PeakMB: 20, Drops: counters{}, TCP: counters{},
				MemoryMB: []float64{5, 10, 20, 20, 20, 20, 20, 20}, Files: []int{5, 5, 5, 5, 5, 5}, Threads: []int{5, 5, 5, 5, 5, 6},
			})
		}
		return r
	}
	r := good()
	if r.judge(5); len(r.Failures) > 0 {
		t.Errorf("a good one failed: %v", r.Failures)
	}
	for word, spoil := range map[string]func(*soakResult){
		"lost, and only":   func(r *soakResult) { r.Ways[1].Arrived-- },
		"0 of 0":           func(r *soakResult) { r.Ways[0].Sent, r.Ways[0].Arrived = 0, 0 },
		"twice":            func(r *soakResult) { r.Ways[0].Twice = 1 },
		"overtaken":        func(r *soakResult) { r.Ways[0].Late = 2 },
		"not as they were": func(r *soakResult) { r.Ways[0].Wrong = 1 },
		"TCP, direction":   func(r *soakResult) { r.TCPMbits[1] = 0 },
		"out of order":     func(r *soakResult) { r.Nodes[1].TCP["TcpExt: TCPOFOQueue"] = 100 },
		"health":           func(r *soakResult) { r.Nodes[0].complain("health: x") },
		"rekeys":           func(r *soakResult) { r.Nodes[1].Rekeys = 4 },
		"memory grew":      func(r *soakResult) { r.Nodes[1].MemoryMB[6], r.Nodes[1].MemoryMB[7] = 31, 31 },
		"of memory":        func(r *soakResult) { r.Nodes[0].PeakMB = 65 },
		"keep growing":     func(r *soakResult) { r.Nodes[0].Files[5] = 9 },
	} {
		r := good()
		spoil(r)
		r.judge(5)
		if !strings.Contains(strings.Join(r.Failures, "\n"), word) {
			t.Errorf("%q was not found: %v", word, r.Failures)
		}
	}
	counted := good()
	counted.Ways[0].Arrived -= 10
	counted.Nodes[1].Drops["mesh0 sending"] = 10
	if counted.judge(5); len(counted.Failures) > 0 {
		t.Errorf("counted drops failed: %v", counted.Failures)
	}
}
