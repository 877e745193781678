//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// PingOptions say how to ping. The zero value is 50 echo requests a second.
type PingOptions struct {
	Interval time.Duration // 20 ms if 0
	Size     int           // bytes of payload; at least 16
	Linger   time.Duration // how long to wait for the last answers after Stop; 1 s if 0
}

// PingStats is what has come of a Pinger.
type PingStats struct {
	Sent, Received, Duplicates int
	// Outage is the longest time for which requests were sent and not answered, from the last one before it that was
	// answered to the first one after it: Interval when none is lost.
	Outage time.Duration
	// Trailing is how long ago the last request was sent that has an answer, seen from the last one that was sent.
	Trailing      time.Duration
	First         time.Duration // from the first request to the first answer; 0 when there is none
	OutageStart   time.Time
	MinRTT, Mean  time.Duration
	MaxRTT        time.Duration
	SendErrors    int // requests that the kernel refused; they are counted in Sent
	LastSendError error
}

// Lost is how many requests have no answer.
func (s PingStats) Lost() int { return s.Sent - s.Received }

// String is a line as ping prints it.
func (s PingStats) String() string {
	line := fmt.Sprintf("%d sent, %d lost, %d duplicate, rtt %v/%v/%v, outage %v", s.Sent, s.Lost(), s.Duplicates, s.MinRTT, s.Mean, s.MaxRTT, s.Outage)
	if s.SendErrors > 0 {
		line += fmt.Sprintf(", %d refused by the kernel: %v", s.SendErrors, s.LastSendError)
	}
	return line
}

// Pinger sends numbered echo requests from a host.
type Pinger struct {
	conn    net.PacketConn
	to      net.Addr
	v6      bool
	id      int
	opts    PingOptions
	stop    chan struct{}
	once    sync.Once
	senders sync.WaitGroup
	readers sync.WaitGroup

	mu      sync.Mutex
	sent    []time.Time     // by number
	rtt     []time.Duration // by number; 0 without an answer
	dup     int
	failed  int
	lastErr error
	count   int // to send; 0 is no end
}

// Pinger begins to ping an address. A link-local one needs its zone.
func (h *Host) Pinger(to netip.Addr, opts PingOptions) (*Pinger, error) { return h.pinger(to, 0, opts) }

// Ping sends count echo requests and waits for the answers, Linger at most for the last.
func (h *Host) Ping(ctx context.Context, to netip.Addr, count int, opts PingOptions) (PingStats, error) {
	p, err := h.pinger(to, count, opts)
	if err != nil {
		return PingStats{}, err
	}
	sent := make(chan struct{})
	go func() {
		p.senders.Wait()
		close(sent)
	}()
	select {
	case <-ctx.Done():
	case <-sent:
	}
	return p.Stop(), ctx.Err()
}

func (h *Host) pinger(to netip.Addr, count int, opts PingOptions) (*Pinger, error) {
	if opts.Interval == 0 {
		opts.Interval = 20 * time.Millisecond
	}
	if opts.Linger == 0 {
		opts.Linger = time.Second
	}
	opts.Size = max(opts.Size, 16)
	p := &Pinger{
		to: &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}, v6: to.Is6(), id: rand.IntN(1 << 16), opts: opts,
		stop: make(chan struct{}), count: count,
	}
	network, any := "ip4:icmp", "0.0.0.0"
	if p.v6 {
		network, any = "ip6:ipv6-icmp", "::"
	}
	err := h.Do(func() (err error) {
		p.conn, err = new(net.ListenConfig).ListenPacket(context.Background(), network, any)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: ping from %s: %w", h.name, err)
	}
	p.senders.Go(p.send)
	p.readers.Go(p.receive)
	h.lab.mu.Lock()
	h.lab.own(p)
	h.lab.mu.Unlock()
	return p, nil
}

// Stop ends the pinging, waits a little for the answers under way, and says how it was.
func (p *Pinger) Stop() PingStats {
	p.halt()
	p.senders.Wait()
	deadline := time.Now().Add(p.opts.Linger)
	for time.Now().Before(deadline) && p.Stats().Lost() > 0 {
		time.Sleep(5 * time.Millisecond) // answers come by themselves, or do not
	}
	_ = p.Close() // nothing was written that could be lost
	return p.Stats()
}

// Close ends the pinging at once.
func (p *Pinger) Close() error {
	p.halt()
	p.senders.Wait()
	err := p.conn.Close()
	p.readers.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Pinger) halt() { p.once.Do(func() { close(p.stop) }) }

func (p *Pinger) send() {
	tick := time.NewTicker(p.opts.Interval)
	defer tick.Stop()
	payload := make([]byte, p.opts.Size)
	m := icmp.Message{Type: ipv4.ICMPTypeEcho}
	if p.v6 {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	for n := 0; p.count == 0 || n < p.count; n++ {
		binary.BigEndian.PutUint64(payload, uint64(n))
		m.Body = &icmp.Echo{ID: p.id, Seq: n & 0xffff, Data: payload}
		packet, err := m.Marshal(nil) // ICMPv6: the kernel fills in the checksum
		if err != nil {
			return
		}
		p.mu.Lock()
		p.sent, p.rtt = append(p.sent, time.Now()), append(p.rtt, 0)
		p.mu.Unlock()
		if _, err := p.conn.WriteTo(packet, p.to); err != nil {
			p.mu.Lock()
			p.failed++
			p.lastErr = err
			p.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

func (p *Pinger) receive() {
	buf := make([]byte, 1<<16)
	protocol := 1
	if p.v6 {
		protocol = 58
	}
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		now := time.Now()
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil || (m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply) {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.ID == p.id && len(echo.Data) >= 8 {
			p.answered(now, binary.BigEndian.Uint64(echo.Data))
		}
	}
}

func (p *Pinger) answered(now time.Time, number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case number >= uint64(len(p.sent)):
	case p.rtt[number] != 0:
		p.dup++
	default:
		p.rtt[number] = max(now.Sub(p.sent[number]), 1)
	}
}

// Stats says how it is so far. What is under way counts as lost.
func (p *Pinger) Stats() PingStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := summarize(p.sent, p.rtt)
	s.Duplicates, s.SendErrors, s.LastSendError = p.dup, p.failed, p.lastErr
	return s
}

// Clean is for how long no request has been lost, as far as those tell that were sent at least patience ago: those that
// are younger may be answered yet.
func (p *Pinger) Clean(patience time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return clean(p.sent, p.rtt, time.Now().Add(-patience))
}

// clean is the time from the last request that was lost, or from the first, to now.
func clean(sent []time.Time, rtt []time.Duration, now time.Time) time.Duration {
	for i := len(sent) - 1; i >= 0; i-- {
		if sent[i].Before(now) && (rtt[i] == 0 || i == 0) {
			return now.Sub(sent[i])
		}
	}
	return 0
}

// summarize counts requests by when they were sent and how long they took; 0 is never.
func summarize(sent []time.Time, rtt []time.Duration) PingStats {
	s := PingStats{Sent: len(sent)}
	if len(sent) == 0 {
		return s
	}
	last, sum := sent[0], time.Duration(0)
	gap := func(to time.Time) {
		if d := to.Sub(last); d > s.Outage {
			s.Outage, s.OutageStart = d, last
		}
	}
	for i, d := range rtt {
		if d == 0 {
			continue
		}
		gap(sent[i])
		last = sent[i]
		if s.Received == 0 || d < s.MinRTT {
			s.MinRTT = d
		}
		if at := sent[i].Add(d).Sub(sent[0]); s.Received == 0 || at < s.First {
			s.First = at
		}
		s.MaxRTT = max(s.MaxRTT, d)
		s.Received++
		sum += d
	}
	gap(sent[len(sent)-1])
	s.Trailing = sent[len(sent)-1].Sub(last)
	if s.Received > 0 {
		s.Mean = sum / time.Duration(s.Received)
	}
	return s
}
