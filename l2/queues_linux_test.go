package l2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/l2"
	"meshd/l2/offload"
)

// Frames of a flow come by one queue, in order, while answers are written to all
// queues; several flows come by several.
func TestQueuesKeepFlows(t *testing.T) {
	n := newNetwork(t)
	tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: macA, Queues: 3, WithoutOffloads: offload.All})
	if tap.Queues() != 3 {
		t.Fatalf("%d queues, want 3", tap.Queues())
	}
	if err := tap.SetAddresses(siteAddrs(0)); err != nil {
		t.Fatal(err)
	}
	const flows, each, window = 16, 200, 16 // of each flow under way: the queue of a TAP is not endless
	var room [flows]chan struct{}
	for i := range room {
		room[i] = make(chan struct{}, each+window)
		for range window {
			room[i] <- struct{}{}
		}
	}
	type arrival struct{ queue, flow, number int }
	arrivals := make(chan arrival, flows*each)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer tap.Close()
	for q := range tap.Queues() {
		readers.Go(func() {
			frames := make([]l2.Frame, 128)
			for {
				k, err := tap.ReadQueue(q, frames)
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, f := range frames[:k] {
					flow, number, ok := numbered(f.Data)
					if !ok {
						continue
					}
					answer(t, tap, f.Data) // moves the flow, where the kernel decides
					arrivals <- arrival{q, flow, number}
					room[flow] <- struct{}{}
				}
			}
		})
	}
	peer := netip.AddrPortFrom(siteAddrs(1)[0].Addr(), 9)
	addNeighbor(t, n, peer.Addr())
	for flow := range flows {
		var c net.Conn
		n.do(func() (err error) {
			c, err = net.Dial("udp", peer.String())
			return err
		})
		defer c.Close()
		go func() {
			for number := range each {
				<-room[flow]
				b := binary.BigEndian.AppendUint16([]byte("flow"), uint16(flow))
				if _, err := c.Write(binary.BigEndian.AppendUint16(b, uint16(number))); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
					t.Error(err)
				}
			}
		}()
	}
	queues, used, next := map[int]int{}, map[int]bool{}, map[int]int{}
	timeout := time.After(patience)
	for range flows * each {
		select {
		case a := <-arrivals:
			if q, known := queues[a.flow]; known && q != a.queue {
				t.Fatalf("flow %d came by queue %d, then by %d", a.flow, q, a.queue)
			}
			if a.number < next[a.flow] {
				t.Fatalf("flow %d: %d came behind %d", a.flow, a.number, next[a.flow])
			}
			queues[a.flow], used[a.queue], next[a.flow] = a.queue, true, a.number
		case <-timeout:
			t.Fatalf("not all frames arrived: %v", next)
		}
	}
	if len(used) < 2 {
		t.Errorf("16 flows came by one queue: %v", queues)
	}
}

// numbered reads what the test sends.
func numbered(frame []byte) (flow, number int, ok bool) {
	at := bytes.Index(frame, []byte("flow"))
	if at < 0 || len(frame) < at+8 {
		return 0, 0, false
	}
	return int(binary.BigEndian.Uint16(frame[at+4:])), int(binary.BigEndian.Uint16(frame[at+6:])), true
}

// answer sends a frame of IPv6 and UDP back to where it came from.
func answer(t *testing.T, tap *l2.TAP, frame []byte) {
	b := bytes.Clone(frame)
	swap := func(x, y, n int) {
		for i := range n {
			b[x+i], b[y+i] = b[y+i], b[x+i]
		}
	}
	swap(0, 6, 6)         // MAC addresses
	swap(14+8, 14+24, 16) // IP addresses
	swap(14+40, 14+42, 2) // ports
	if err := tap.Write([]l2.Frame{{Data: b}}); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// addNeighbor spares the host its neighbour discovery.
func addNeighbor(t *testing.T, n *network, ip netip.Addr) {
	t.Helper()
	n.do(func() error {
		link, err := netlink.LinkByName("mesh0")
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: macB[:],
		})
	})
}

// The number of queues may change from process to process; one that holds the TAP is
// not joined by another.
func TestQueuesChange(t *testing.T) {
	n := newNetwork(t)
	for _, step := range []struct{ queues, want int }{{1, 1}, {3, 1}, {1, 1}} { // made with one: it stays so
		tap := openTAP(t, n, l2.TAPConfig{Name: "one", Queues: step.queues, Persist: true})
		if tap.Queues() != step.want {
			t.Errorf("%d queues, want %d of %d", tap.Queues(), step.want, step.queues)
		}
		tap.Close()
	}
	for _, queues := range []int{3, 1, 2, 100} { // made with several: it may have any number
		tap := openTAP(t, n, l2.TAPConfig{Name: "many", Queues: queues, Persist: true})
		if want := min(queues, 8); tap.Queues() != want {
			t.Errorf("%d queues, want %d", tap.Queues(), want)
		}
		if queues == 2 {
			n.do(func() error {
				if other, err := l2.OpenTAP(l2.TAPConfig{Name: "many", Queues: queues}); err == nil {
					other.Close()
					t.Error("two hold one TAP")
				}
				return nil
			})
		}
		tap.Close()
	}
	for _, name := range []string{"one", "many"} {
		n.do(func() error { return l2.RemoveTAP(name) })
		if !gone(n, name) {
			t.Errorf("%s is still there", name)
		}
	}
}
