package main

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"meshd/integration/lab"
	"meshd/mesh/api"
)

// soakNode is what was seen of one node.
type soakNode struct {
	Rekeys     int       `json:"rekeys"`
	MemoryMB   []float64 `json:"memory_mib"` // at even intervals
	Files      []int     `json:"files"`      // open
	Threads    []int     `json:"threads"`
	PeakMB     float64   `json:"peak_mib"`
	Drops      counters  `json:"queue_drops"`
	TCP        counters  `json:"tcp"`
	Complaints []string  `json:"complaints"` // in its log and its health

	node      *lab.Node
	handshake time.Time
	drops     counters // before
	tcp       counters
}

// look takes a sample of a node.
func (n *soakNode) look(ctx context.Context) {
	pid := strconv.Itoa(n.node.PID())
	if status, err := os.ReadFile("/proc/" + pid + "/status"); err != nil {
		n.complain("it has ended")
		return
	} else if kB, ok := parseField(string(status), "VmRSS:"); ok {
		n.MemoryMB = append(n.MemoryMB, float64(kB)/1024)
		if threads, ok := parseField(string(status), "Threads:"); ok {
			n.Threads = append(n.Threads, threads)
		}
	}
	if files, err := os.ReadDir("/proc/" + pid + "/fd"); err == nil {
		n.Files = append(n.Files, len(files))
	}
	var status api.Status
	if err := n.node.JSON(ctx, &status, "status"); err != nil {
		if ctx.Err() == nil {
			n.complain(err.Error())
		}
		return
	}
	for _, h := range status.Health {
		n.complain("health: " + h.Code + ": " + h.Text)
	}
	for _, p := range status.Peers {
		if p.Name == status.Self.Name {
			continue
		}
		if p.State != api.StateDirect {
			n.complain("state of the other: " + string(p.State))
		}
		if p.LastHandshake.After(n.handshake) {
			if !n.handshake.IsZero() {
				n.Rekeys++
			}
			n.handshake = p.LastHandshake
		}
	}
}

// complain notes what is wrong, once.
func (n *soakNode) complain(what string) {
	if !slices.Contains(n.Complaints, what) {
		n.Complaints = append(n.Complaints, what)
	}
}

// parseField reads a number of /proc/PID/status.
func parseField(text, name string) (int, bool) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			return n, err == nil
		}
	}
	return 0, false
}

// finish reads what a node and its host have counted.
func (n *soakNode) finish(h *lab.Host) error {
	drops, err := queueDrops(h)
	if err != nil {
		return err
	}
	tcp, err := tcpCounters(h)
	if err != nil {
		return err
	}
	n.Drops, n.TCP = drops.since(n.drops), counters{}
	all := tcp.since(n.tcp)
	for _, name := range []string{"Tcp: OutSegs", "Tcp: RetransSegs", "TcpExt: TCPDSACKRecvSegs", "TcpExt: TCPLossProbes", "TcpExt: TCPTimeouts", "TcpExt: TCPOFOQueue"} {
		n.TCP[name] = all[name]
	}
	if peak, err := peakMemory([]int{n.node.PID()}); err == nil {
		n.PeakMB = float64(peak) / (1 << 20)
	}
	for line := range strings.Lines(n.node.Output()) {
		if strings.Contains(line, "WARN") || strings.Contains(line, "ERROR") || strings.Contains(line, "panic") {
			n.complain("log: " + strings.TrimSpace(line))
		}
	}
	return nil
}
