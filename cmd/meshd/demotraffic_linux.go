package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meshd/integration/lab"
	"meshd/mesh/api"
)

const (
	// demoEtherType is the first of the two for local experiments (IEEE 802).
	demoEtherType = 0x88b5
	// demoPings is how many pings each pair exchanges.
	demoPings = 10
	mdnsPort  = 5353
)

// pingAll pings over the TAPs, from everybody to everybody, by ICMPv6 of the hosts' kernels.
func (d *demo) pingAll(ctx context.Context) error {
	d.headline("Pings across: ICMPv6 of the hosts themselves, over their TAPs")
	for _, from := range d.all() {
		for _, to := range d.all() {
			if from == to {
				continue
			}
			s, err := from.Host.Ping(ctx, to.addr, demoPings, lab.PingOptions{})
			if err != nil {
				return err
			}
			d.say("%-7s → %-7s  %v  %d of %d answered, %s", from.name, to.name, to.addr, s.Received, s.Sent, roundTrip(s.Mean))
			if s.Lost() > 0 {
				return fmt.Errorf("ping from %s to %s: %d of %d lost", from.name, to.name, s.Lost(), s.Sent)
			}
		}
	}
	return nil
}

func roundTrip(d time.Duration) string { return millis(float64(d) / float64(time.Millisecond)) }

// broadcast sends a frame of no known protocol to everybody.
func (d *demo) broadcast(ctx context.Context) error {
	d.headline("A broadcast frame of a protocol that nobody knows: this is Ethernet, and not only IP")
	frame, err := d.broadcastFrame()
	if err != nil {
		return err
	}
	same := func(f lab.Frame) bool { return !f.Out && string(f.Data) == string(frame) }
	captures := map[*demoNode]*lab.Capture{}
	for _, n := range []*demoNode{d.desktop, d.laptop} {
		c, err := n.Host.Capture(defaultTAP)
		if err != nil {
			return err
		}
		defer c.Close()
		captures[n] = c
	}
	d.say("nas sends %d bytes of EtherType %#04x to ff:ff:ff:ff:ff:ff", len(frame), demoEtherType)
	if err := d.nas.Host.SendFrame(defaultTAP, frame); err != nil {
		return err
	}
	for _, n := range []*demoNode{d.desktop, d.laptop} {
		if _, err := captures[n].Wait(ctx, same); err != nil {
			return fmt.Errorf("%s did not receive the broadcast: %w", n.name, err)
		}
	}
	if err := d.settleFrames(ctx); err != nil {
		return err
	}
	for _, n := range []*demoNode{d.desktop, d.laptop} {
		copies := captures[n].Count(same)
		d.say("%s received it, byte by byte the same, %s", n.name, times(copies))
		if copies != 1 {
			return fmt.Errorf("%s received the broadcast %d times", n.name, copies)
		}
	}
	return nil
}

// settleFrames lets a frame that took a longer way arrive: pings that were sent later have been answered then.
func (d *demo) settleFrames(ctx context.Context) error {
	for _, to := range []*demoNode{d.desktop, d.laptop} {
		if _, err := d.nas.Host.Ping(ctx, to.addr, 3, lab.PingOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) broadcastFrame() ([]byte, error) {
	var mac net.HardwareAddr
	err := d.nas.Host.Do(func() error {
		tap, err := net.InterfaceByName(defaultTAP)
		if err == nil {
			mac = tap.HardwareAddr
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	frame := slices.Concat([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac)
	frame = binary.BigEndian.AppendUint16(frame, demoEtherType)
	frame = append(frame, "hello, everybody"...)
	return append(frame, make([]byte, 60-len(frame))...), nil
}

// heardQuery is a machine that has received the mDNS query.
type heardQuery struct {
	name string
	from netip.Addr
}

// multicast asks by mDNS for a name, as a laptop that looks for a printer does, and has the one that is called so answer.
func (d *demo) multicast(ctx context.Context) error {
	d.headline("An mDNS query: who is nas.local?")
	heard := make(chan heardQuery, 16)
	for _, n := range []*demoNode{d.nas, d.desktop} {
		stop, err := n.answerMDNS(heard)
		if err != nil {
			return err
		}
		defer stop()
	}
	var conn net.PacketConn
	to := &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: mdnsPort}
	err := d.laptop.Host.Do(func() error {
		tap, err := net.InterfaceByName(defaultTAP)
		if err != nil {
			return err
		}
		to.Zone = fmt.Sprint(tap.Index)
		conn, err = net.ListenPacket("udp6", "[::]:0")
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	query, err := new(dns.Msg).SetQuestion("nas.local.", dns.TypeAAAA).Pack()
	if err != nil {
		return err
	}
	d.say("laptop asks at [ff02::fb]:%d", mdnsPort)
	if _, err := conn.WriteTo(query, to); err != nil {
		return err
	}
	for range 2 {
		select {
		case h := <-heard:
			d.say("%s received the query from %v", h.name, h.from)
		case <-ctx.Done():
			return errors.New("the query did not reach everybody")
		}
	}
	return d.mdnsAnswer(ctx, conn)
}

// mdnsAnswer waits for the answer and shows it.
func (d *demo) mdnsAnswer(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 1500)
	n, _, err := conn.ReadFrom(buf)
	if err != nil {
		return fmt.Errorf("wait for the mDNS answer: %w", err)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(buf[:n]); err != nil {
		return fmt.Errorf("read the mDNS answer: %w", err)
	}
	for _, rr := range answer.Answer {
		if aaaa, ok := rr.(*dns.AAAA); ok && aaaa.AAAA.Equal(d.nas.addr.AsSlice()) {
			d.say("laptop gets the answer: nas.local is %v", aaaa.AAAA)
			return nil
		}
	}
	return fmt.Errorf("the mDNS answer has not the address of nas: %v", answer.Answer)
}

// answerMDNS lets a machine listen to mDNS on its TAP and answer for its own name. A query from another port than 5353 gets its answer there
// (RFC 6762, section 6.7).
func (n *demoNode) answerMDNS(heard chan<- heardQuery) (stop func(), err error) {
	var conn *net.UDPConn
	err = n.Host.Do(func() error {
		tap, err := net.InterfaceByName(defaultTAP)
		if err != nil {
			return err
		}
		conn, err = net.ListenMulticastUDP("udp6", tap, &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: mdnsPort})
		return err
	})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buf[:size]) != nil || q.Response || len(q.Question) != 1 {
				continue
			}
			heard <- heardQuery{n.name, from.Addr().WithZone("")}
			if q.Question[0].Name == n.name+".local." {
				n.sendMDNS(conn, q, from)
			}
		}
	}()
	return func() {
		conn.Close()
		<-done
	}, nil
}

func (n *demoNode) sendMDNS(conn *net.UDPConn, q *dns.Msg, to netip.AddrPort) {
	r := new(dns.Msg).SetReply(q)
	r.Authoritative = true
	r.Answer = []dns.RR{&dns.AAAA{
		Hdr:  dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeAAAA, Class: dns.ClassINET, Ttl: 10},
		AAAA: n.addr.AsSlice(),
	}}
	if b, err := r.Pack(); err == nil {
		_, _ = conn.WriteToUDPAddrPort(b, to) // whoever asks will ask again
	}
}

// roam carries the laptop from the cafe to the office while it is pinged.
func (d *demo) roam(ctx context.Context) error {
	d.headline("The laptop moves from the cafe to the office, under a running ping from home")
	if err := d.showPath(ctx, "before"); err != nil {
		return err
	}
	p, err := d.nas.Host.Pinger(d.laptop.addr, lab.PingOptions{})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := d.answered(ctx, p, 50); err != nil {
		return err
	}
	if err := d.laptop.Host.Move(d.office); err != nil {
		return err
	}
	d.say("the laptop has been carried over; its underlay address is now %v", d.laptop.Host.Addr4())
	// A pong on its way must not count as the way back: those that count were sent after the move.
	sent := p.Stats().Sent
	if err := d.answeredAfter(ctx, p, sent, 50); err != nil {
		return fmt.Errorf("the laptop did not come back: %w", err)
	}
	s := p.Stop()
	if err := d.showPath(ctx, "after"); err != nil {
		return err
	}
	d.say("outage: %v, of which the laptop was unplugged for a part; %d of %d pings lost; its address on the segment is the same, %v",
		s.Outage.Round(time.Millisecond), s.Lost(), s.Sent, d.laptop.addr)
	return nil
}

// answered waits until so many pings have been answered.
func (d *demo) answered(ctx context.Context, p *lab.Pinger, count int) error {
	return d.answeredAfter(ctx, p, 0, count)
}

// answeredAfter waits until count pings more have been answered than could be with those up to after still open.
func (d *demo) answeredAfter(ctx context.Context, p *lab.Pinger, after, count int) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	base := -1
	for {
		s := p.Stats()
		if base < 0 && s.Sent > after {
			base = s.Received
		}
		d.progress("%d sent, %d answered, last outage %v", s.Sent, s.Received, s.Outage.Round(time.Millisecond))
		if base >= 0 && s.Received >= base+count {
			d.progressEnd()
			return nil
		}
		select {
		case <-ctx.Done():
			d.progressEnd()
			return fmt.Errorf("%d of %d pings answered: %w", s.Received, s.Sent, ctx.Err())
		case <-tick.C:
		}
	}
}

// showPath shows how home reaches the laptop.
func (d *demo) showPath(ctx context.Context, when string) error {
	var s api.Status
	if err := d.nas.JSON(ctx, &s, "status"); err != nil {
		return err
	}
	for _, p := range s.Peers {
		if p.Name == d.laptop.name {
			d.say("%s: nas reaches the laptop %s, %s", when, strings.ToLower(string(p.State)), pathText(p.Transport, p.Endpoint, p.Via))
		}
	}
	return nil
}
