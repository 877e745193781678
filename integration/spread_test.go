//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

const (
	spreadNodes = 12 // more than are sent a broadcast each
	spreadLimit = 8  // copies that one may send
	spreadFrame = 1000
	// spreadCopy is the UDP payload of a copy of such a frame: larger than any control message.
	spreadCopy = 32 + (4+108+spreadFrame+15)/16*16
)

// TestSpreading has twelve machines on one Ethernet: a broadcast comes to each once, none sends more than eight copies, and
// those that are left have it within a second when some are killed.
func TestSpreading(t *testing.T) {
	w := newWorld(t)
	nodes := []*lab.Node{w.found(w.net.Host("host0", lab.HostConfig{V4: true}))}
	invite := w.invite(nodes[0], "--uses", strconv.Itoa(spreadNodes))
	for i := 1; i < spreadNodes; i++ {
		name := fmt.Sprintf("host%d", i)
		h := w.net.Host(name, lab.HostConfig{V4: true})
		n := w.node(h)
		w.must(n.UpWithInput(strings.NewReader(invite+"\n"), "--join", "-"))
		nodes = append(nodes, n)
	}
	w.all(nodes, func(n *lab.Node) error { return n.Ready(w.within(20 * time.Second)) })
	w.waitPeers(nodes...)
	w.checkBroadcast(nodes...)
	under, over := map[*lab.Node]*lab.Capture{}, map[*lab.Node]*lab.Capture{}
	for _, n := range nodes {
		var err error
		under[n], err = n.Host.Capture("eth0")
		w.must(err)
		over[n], err = n.Host.Capture("mesh0")
		w.must(err)
	}
	for round, from := range []*lab.Node{nodes[0], nodes[5], nodes[5], nodes[11]} {
		w.checkSpread(round, from, nodes, under, over)
	}
	dead := []*lab.Node{nodes[3], nodes[8]}
	for _, n := range dead {
		w.must(n.Kill())
	}
	left := nodes[:0:0]
	for _, n := range nodes {
		if n != dead[0] && n != dead[1] {
			left = append(left, n)
		}
	}
	w.checkSpread(100, nodes[5], left, under, over)
	w.checkSpread(101, nodes[2], left, under, over)
}

// checkSpread sends a broadcast and looks at who gets and who sends it, and when.
func (w *world) checkSpread(round int, from *lab.Node, nodes []*lab.Node, under, over map[*lab.Node]*lab.Capture) {
	w.Helper()
	everyone := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	text := fmt.Appendf([]byte{0x88, 0xb5}, "spread %d ", round)
	frame := ethernet(everyone, w.mac(from), append(text, bytes.Repeat([]byte{0xa5}, spreadFrame-12-len(text))...))
	isFrame := func(f lab.Frame) bool { return !f.Out && bytes.Equal(f.Data, frame) }
	isCopy := func(f lab.Frame) bool { // Ethernet, IPv4 and UDP before it
		return f.Out && len(f.Data) == 42+spreadCopy && f.Data[12] == 8 && f.Data[42] == 4
	}
	before := map[*lab.Node]int{}
	for _, n := range nodes {
		before[n] = under[n].Count(isCopy)
	}
	began, last := time.Now(), time.Duration(0)
	w.must(from.Host.SendFrame("mesh0", frame))
	for _, n := range nodes {
		if n == from {
			continue
		}
		f, err := over[n].Wait(w.within(5*time.Second), isFrame)
		w.must(err)
		last = max(last, f.Time.Sub(began))
	}
	time.Sleep(time.Second) // in which a second one would come
	total, most := 0, 0
	for _, n := range nodes {
		if got := over[n].Count(isFrame); n != from && got != 1 {
			w.Errorf("round %d: a broadcast came to %s %d times", round, n.Host.Name(), got)
		}
		sent := under[n].Count(isCopy) - before[n]
		total, most = total+sent, max(most, sent)
	}
	w.Logf("round %d: %d have it after %v; %d copies, at most %d from one", round, len(nodes)-1, last.Round(time.Millisecond), total, most)
	if most > spreadLimit || total < len(nodes)-1 {
		w.Errorf("round %d: %d copies, %d from one", round, total, most)
	}
	if last > time.Second {
		w.Errorf("round %d: the last has it after %v", round, last)
	}
}
