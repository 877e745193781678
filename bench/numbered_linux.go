package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"meshd/integration/lab"
)

const (
	numberedPort   = 6001
	numberedTick   = time.Millisecond
	numberedBuffer = 8 << 20
)

// numbered sends datagrams with numbers one way, at a steady rate, and knows which of them arrived.
type numbered struct {
	in, out *net.UDPConn
	rate    int   // per second
	sizes   []int // of the payloads, in turn

	sent    atomic.Int64
	refused atomic.Int64 // by the sender's own host: not sent
	mu      sync.Mutex
	arrival arrivals
}

// arrivals is what came of a run of numbered datagrams.
type arrivals struct {
	seen     []uint64 // a bit for each number
	Arrived  int64    `json:"arrived"`   // different ones
	Twice    int64    `json:"twice"`     // again
	Late     int64    `json:"late"`      // after one with a higher number
	Wrong    int64    `json:"wrong"`     // not as they were sent
	LongestS float64  `json:"longest_s"` // without an arrival
	next     uint64
	last     time.Time
}

// note takes the number of a datagram that has arrived.
func (a *arrivals) note(n uint64, now time.Time) {
	if !a.last.IsZero() {
		a.LongestS = max(a.LongestS, now.Sub(a.last).Seconds())
	}
	a.last = now
	for uint64(len(a.seen)) <= n/64 {
		a.seen = append(a.seen, 0)
	}
	bit := uint64(1) << (n % 64)
	switch {
	case a.seen[n/64]&bit != 0:
		a.Twice++
		return
	case n < a.next:
		a.Late++
	default:
		a.next = n + 1
	}
	a.seen[n/64] |= bit
	a.Arrived++
}

// newNumbered opens the sockets at both hosts.
func newNumbered(from, at *lab.Host, to netip.Addr, rate int, sizes []int) (*numbered, error) {
	n := &numbered{rate: rate, sizes: sizes}
	dst := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, numberedPort))
	err := at.Do(func() (err error) { n.in, err = net.ListenUDP("udp", dst); return err })
	if err != nil {
		return nil, fmt.Errorf("open socket that receives numbered datagrams: %w", err)
	}
	if err = from.Do(func() (err error) { n.out, err = net.DialUDP("udp", nil, dst); return err }); err != nil {
		n.in.Close()
		return nil, fmt.Errorf("open socket that sends numbered datagrams: %w", err)
	}
	for _, c := range []*net.UDPConn{n.in, n.out} {
		if err := enlarge(c); err != nil {
			n.close()
			return nil, err
		}
	}
	return n, nil
}

// enlarge gives a socket room for all that can be under way.
func enlarge(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, numberedBuffer)
		if set == nil {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, numberedBuffer)
		}
	})
	if err == nil {
		err = os.NewSyscallError("setsockopt", set)
	}
	return err
}

func (n *numbered) close() {
	n.out.Close()
	n.in.Close()
}

// fill makes datagram number i.
func fill(b []byte, i uint64) {
	binary.BigEndian.PutUint64(b, i)
	for k := 8; k < len(b); k++ {
		b[k] = byte(uint64(k) * (i + 1))
	}
}

// intact reports whether b is datagram number i, of the size that it was sent with.
func (n *numbered) intact(b []byte, i uint64) bool {
	if len(b) != n.sizes[i%uint64(len(n.sizes))] {
		return false
	}
	for k := 8; k < len(b); k++ {
		if b[k] != byte(uint64(k)*(i+1)) {
			return false
		}
	}
	return true
}

// send sends until the context ends.
func (n *numbered) send(ctx context.Context) {
	tick := time.NewTicker(numberedTick)
	defer tick.Stop()
	buf := make([]byte, 2048)
	number := uint64(0)
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// What a pause of this program has missed is not made up for: the rate stays below what the path takes.
		now := time.Now()
		due := min(int(float64(n.rate)*now.Sub(last).Seconds()+0.5), 4*n.rate*int(numberedTick)/int(time.Second)+1)
		if due == 0 {
			continue
		}
		last = now
		for range due {
			b := buf[:n.sizes[number%uint64(len(n.sizes))]]
			fill(b, number)
			if _, err := n.out.Write(b); err != nil {
				n.refused.Add(1)
				continue
			}
			number++
			n.sent.Store(int64(number))
		}
	}
}

// receive receives until the socket is closed.
func (n *numbered) receive() {
	buf := make([]byte, 2048)
	for {
		size, err := n.in.Read(buf)
		if err != nil {
			return
		}
		now := time.Now()
		n.mu.Lock()
		if number := binary.BigEndian.Uint64(buf); size < 8 || number >= uint64(n.sent.Load())+uint64(n.rate) || !n.intact(buf[:size], number) {
			n.arrival.Wrong++
		} else {
			n.arrival.note(number, now)
		}
		n.mu.Unlock()
	}
}

// result is what has come of them so far.
func (n *numbered) result() arrivals {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.arrival
}
