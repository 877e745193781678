package udptest

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Internet is the public internet. Hosts and NATs are attached to it.
type Internet struct {
	seed uint64
	core *realm

	taps  atomic.Pointer[[]func(Datagram)]
	rules atomic.Pointer[[]*rule]

	mu      sync.Mutex // everything below, and the state of realms, hosts, lines and NATs
	events  events
	seq     uint64 // of the next event
	lines   uint64 // made so far
	pumping bool   // somebody runs due events and will run ours
	timer   *time.Timer
	flows   flowLog
}

// Place is where a host can be: on the Internet or behind a NAT.
type Place interface {
	// Host attaches a new host; its first address of a family is what it sends from.
	Host(addrs ...netip.Addr) *Host
	// NAT attaches a box whose outside has the given addresses.
	NAT(cfg NATConfig, outside ...netip.Addr) *NAT

	inside() *realm
}

// Datagram is what a tap or a filter sees. Data is not to be changed or kept.
type Datagram struct {
	From *Host          // nil when injected
	To   *Host          // nil in a tap: it is not known yet
	Src  netip.AddrPort // in a tap as sent, in a filter as the receiver sees it
	Dst  netip.AddrPort // likewise
	Data []byte
}

// rule is one filter of Block.
type rule struct{ drop func(Datagram) bool }

// NewInternet makes an empty internet. The same seed gives the same losses,
// jitter and ports.
func NewInternet(seed uint64) *Internet {
	n := &Internet{seed: seed}
	n.core = newRealm("internet", nil)
	n.flows.start = time.Now()
	n.taps.Store(new([]func(Datagram)))
	n.rules.Store(new([]*rule))
	return n
}

func (n *Internet) inside() *realm { return n.core }

// Host attaches a host with public addresses.
func (n *Internet) Host(addrs ...netip.Addr) *Host { return newHost(n, n.core, addrs) }

// NAT attaches a NAT with public outside addresses.
func (n *Internet) NAT(cfg NATConfig, outside ...netip.Addr) *NAT {
	return newNAT(n, n.core, cfg, outside)
}

// Tap has f see every datagram as its sender sends it. f may be called by
// several goroutines at once.
func (n *Internet) Tap(f func(Datagram)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	taps := append(slices.Clone(*n.taps.Load()), f)
	n.taps.Store(&taps)
}

// Block drops every datagram for which filter says true, when it is about to
// reach a socket. The filter may call Inject, to deliver something else instead.
func (n *Internet) Block(filter func(Datagram) bool) (unblock func()) {
	r := &rule{filter}
	n.mu.Lock()
	defer n.mu.Unlock()
	rules := append(slices.Clone(*n.rules.Load()), r)
	n.rules.Store(&rules)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		rules := slices.DeleteFunc(slices.Clone(*n.rules.Load()), func(x *rule) bool { return x == r })
		n.rules.Store(&rules)
	}
}

// Partition cuts the groups off from each other. A host in no group reaches all.
func (n *Internet) Partition(groups ...[]*Host) (heal func()) {
	group := make(map[*Host]int)
	for i, hosts := range groups {
		for _, h := range hosts {
			group[h] = i
		}
	}
	return n.Block(func(d Datagram) bool {
		from, ok1 := group[d.From]
		to, ok2 := group[d.To]
		return ok1 && ok2 && from != to
	})
}

// Inject has a datagram enter the public internet with any source: a spoofed,
// replayed or changed one.
func (n *Internet) Inject(src, dst netip.AddrPort, data []byte) {
	d := newPassage(nil, src, dst, data)
	n.tap(d)
	n.mu.Lock()
	n.schedule(time.Now(), func() { n.route(n.core, d) })
	n.mu.Unlock()
	n.pump()
}

func (n *Internet) tap(d *passage) {
	for _, f := range *n.taps.Load() {
		f(Datagram{From: d.from, Src: d.src, Dst: d.dst, Data: d.data})
	}
}

// rng gives each line and NAT numbers of its own, so that traffic on one does
// not change what happens on another. The caller holds the lock.
func (n *Internet) rng() *rand.Rand {
	n.lines++
	return rand.New(rand.NewPCG(n.seed, n.lines))
}

// event is something to be done at a time, without the lock.
type event struct {
	at  time.Time
	seq uint64
	run func()
}

// events is a heap by time and then by order of scheduling.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if !e[i].at.Equal(e[j].at) {
		return e[i].at.Before(e[j].at)
	}
	return e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return last
}

// schedule is called with the lock held; pump has to follow.
func (n *Internet) schedule(at time.Time, run func()) {
	heap.Push(&n.events, event{at, n.seq, run})
	n.seq++
}

// pump runs what is due, one event after another in the order of their times,
// and sets the timer for the next. Only one goroutine does so at a time; an
// event may schedule others.
func (n *Internet) pump() {
	n.mu.Lock()
	if n.pumping {
		n.mu.Unlock()
		return
	}
	n.pumping = true
	for len(n.events) > 0 && !n.events[0].at.After(time.Now()) {
		e := heap.Pop(&n.events).(event)
		n.mu.Unlock()
		e.run() // may end the goroutine: a filter may fail the test
		n.mu.Lock()
	}
	n.pumping = false
	n.setTimer()
	n.mu.Unlock()
}

// setTimer has pump called when the next event is due.
func (n *Internet) setTimer() {
	if len(n.events) == 0 {
		return
	}
	wait := time.Until(n.events[0].at)
	if n.timer == nil {
		n.timer = time.AfterFunc(wait, n.pump)
	} else {
		n.timer.Reset(wait)
	}
}

// passage is a datagram on its way.
type passage struct {
	from     *Host
	src, dst netip.AddrPort // as they are at this point
	data     []byte

	sentAt           time.Time
	sentSrc, sentDst netip.AddrPort
}

func newPassage(from *Host, src, dst netip.AddrPort, data []byte) *passage {
	return &passage{
		from: from, src: src, dst: dst, data: slices.Clone(data),
		sentAt: time.Now(), sentSrc: src, sentDst: dst,
	}
}

// size is that of the IP packet.
func (d *passage) size() int { return ipSize(len(d.data), d.dst.Addr()) }

func ipSize(payload int, a netip.Addr) int {
	const ipv4, ipv6, udp = 20, 40, 8
	if a.Is4() {
		return payload + ipv4 + udp
	}
	return payload + ipv6 + udp
}

// realm is where an address means something.
type realm struct {
	name    string
	up      *NAT // the way out; nil on the public internet
	members map[netip.Addr]member
	nats    []*NAT
}

// member is what an address in a realm belongs to.
type member interface {
	downLine() *line
	arrive(*passage) // without the lock
}

func newRealm(name string, up *NAT) *realm {
	return &realm{name: name, up: up, members: make(map[netip.Addr]member)}
}

// join panics on an address that is taken: the test is wrong.
func (r *realm) join(m member, addrs []netip.Addr) {
	for _, a := range addrs {
		if r.members[a] != nil {
			panic(fmt.Sprintf("udptest: address %s is taken in %s", a, r.name))
		}
		r.members[a] = m
	}
}

func (r *realm) leave(m member) {
	for a, x := range r.members {
		if x == m {
			delete(r.members, a)
		}
	}
}

// find returns the member that a packet to a goes to. IPv6 is not translated, so
// that the inside of a NAT is found through it.
func (r *realm) find(a netip.Addr) member {
	if m := r.members[a]; m != nil {
		return m
	}
	if a.Is6() {
		for _, nat := range r.nats {
			if nat.in.find(a) != nil {
				return nat
			}
		}
	}
	return nil
}

// route takes d, which has reached r, a step further. It is called without the
// lock.
func (n *Internet) route(r *realm, d *passage) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := r.find(d.dst.Addr())
	switch {
	case m != nil:
		n.cross(m.downLine(), d, m.arrive)
	case r.up != nil:
		r.up.outbound(d)
	default:
		n.flows.dropped(d, "no host has this address")
	}
}

// cross sends d over a line, at the end of which it meets arrive. The lock is held.
func (n *Internet) cross(l *line, d *passage, arrive func(*passage)) {
	now := time.Now()
	delays, reason := l.admit(now, d.size())
	if reason != "" {
		n.flows.dropped(d, reason)
		return
	}
	for _, delay := range delays {
		d := *d // a duplicate has a way of its own
		n.schedule(now.Add(delay), func() { arrive(&d) })
	}
}
