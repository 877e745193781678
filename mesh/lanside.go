package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	limit "golang.org/x/time/rate"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/lanport"
)

const (
	// lanQueue is what may wait of what was heard on the LAN, and lanRate how many
	// signatures are looked at in a second: anybody there can send such frames.
	lanQueue = 64
	lanRate  = 500
	// suspectGap bounds how often suspicions wake the port: they come with frames.
	suspectGap = 20 * time.Millisecond
	// lanContext stands in front of what a statement's signature covers, with the
	// network's id.
	lanContext = "meshd/1/lanport\x00"
)

// lanSide is this node's part on a LAN that it bridges: the shell of lanport.Machine.
// It closes and opens the switch by itself, without waiting for the control goroutine.
type lanSide struct {
	node    *Node
	network keys.NetworkID
	sw      *l2.Switch
	machine *lanport.Machine // owned by run
	looks   *limit.Limiter   // likewise

	heard chan []byte            // payloads of frames
	told  chan lanport.Statement // over the overlay, verified
	cause chan struct{}

	decided chan struct{} // closed when the port has listened for long enough, or there is no LAN
	decide  func()        // closes it

	// Causes, and what the control goroutine knows.
	up, fit            atomic.Bool
	suspected, changed atomic.Bool
	lastSuspect        atomic.Int64                                     // time.Duration since the node's start
	members            atomic.Pointer[map[lanport.ID]ed25519.PublicKey] // that may bridge

	mu      sync.Mutex
	latest  map[lanport.ID]signedStatement // ours, and of those on the LAN
	version int                            // of what latest says
	port    lanPort
}

// signedStatement is a statement with its bytes, for others.
type signedStatement struct {
	lanport.Statement
	raw []byte
}

// lanPort is what people are shown.
type lanPort struct {
	state     lanport.State
	segment   lanport.Segment
	forwarder lanport.ID
	beside    []lanport.ID
}

func (n *Node) newLANSide() *lanSide {
	newSegment := func() (s lanport.Segment) {
		_, _ = rand.Read(s[:]) // never fails (crypto/rand)
		s[0] |= 1              // zero is none
		return s
	}
	decided := make(chan struct{})
	return &lanSide{
		decided: decided, decide: sync.OnceFunc(func() { close(decided) }),
		node: n, network: n.state.membership.trust().NetworkID(), looks: limit.NewLimiter(lanRate, lanQueue),
		machine: lanport.New(lanport.Config{Self: lanport.ID(n.self), Epoch: n.state.dir.Epoch(), NewSegment: newSegment}),
		heard:   make(chan []byte, lanQueue), told: make(chan lanport.Statement, lanQueue), cause: make(chan struct{}, 1),
		latest: map[lanport.ID]signedStatement{},
	}
}

var _ l2.LANSide = (*lanSide)(nil)

// Heard implements l2.LANSide.
func (l *lanSide) Heard(frame []byte) {
	payload, members := l2.LANPayload(frame), l.members.Load()
	if payload == nil || members == nil || len(l.heard) == cap(l.heard) {
		return
	}
	if from, ok := lanport.Sender(payload); !ok || (*members)[from] == nil {
		return
	}
	select {
	case l.heard <- append([]byte(nil), payload...):
	default:
	}
}

// Suspect implements l2.LANSide.
func (l *lanSide) Suspect() {
	now := time.Since(l.node.started)
	if now-time.Duration(l.lastSuspect.Load()) < suspectGap {
		return
	}
	l.lastSuspect.Store(int64(now))
	l.suspected.Store(true)
	l.wake()
}

func (l *lanSide) wake() {
	select {
	case l.cause <- struct{}{}:
	default:
	}
}

// set tells it what the control goroutine knows: whether the LAN has a link, and whether
// members beyond it are reached.
func (l *lanSide) set(link, fit bool) {
	news := l.up.Swap(link) != link
	news = l.fit.Swap(fit) != fit || news
	if news {
		l.wake()
	}
}

// expect says that the TAP is about to come to a LAN: nothing goes there before it has been
// listened to, not even what waited for this node to come back.
func (l *lanSide) expect() {
	l.up.Store(true)
	l.sw.Shut(true)
	l.wake()
}

// hostChanged says that links of this host have changed.
func (l *lanSide) hostChanged() {
	l.changed.Store(true)
	l.wake()
}

// hearOverlay passes on what came over the overlay.
func (l *lanSide) hearOverlay(s lanport.Statement) {
	select {
	case l.told <- s:
	default: // it comes again
	}
}

// run serves the port until ctx ends, and says goodbye on the LAN.
func (l *lanSide) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.leave()
			return
		case payload := <-l.heard:
			if !l.hear(time.Now(), payload) {
				continue
			}
		case s := <-l.told:
			l.machine.Told(time.Now(), s)
		case <-l.cause:
		case <-timer.C:
		}
		timer.Reset(time.Until(l.step(time.Now())))
	}
}

// step does what is due, and returns when it is to be called again.
func (l *lanSide) step(now time.Time) time.Time {
	m := l.machine
	m.Link(now, l.up.Load())
	if l.changed.Swap(false) {
		m.Changed(now)
	}
	if l.suspected.Swap(false) && m.Open() {
		m.Suspect(now)
	}
	m.SetFit(now, l.fit.Load())
	l.apply(false) // first of all: nobody is told before it is so
	say, next := m.Poll(now)
	l.apply(say != nil)
	if say != nil {
		l.say(say)
	}
	return next
}

// apply makes the switch what the machine says; again because it may have new remotes.
func (l *lanSide) apply(again bool) {
	l.sw.Shut(!l.machine.Open())
	beside := l.machine.Beside()
	if again || !slices.Equal(beside, l.port.beside) { // port is written here alone
		names := make(map[string]bool, len(beside))
		for _, id := range beside {
			names[keys.NodeID(id).String()] = true
		}
		l.sw.Beside(names)
	}
	port := lanPort{l.machine.State(), l.machine.Segment(), l.machine.Forwarder(), beside}
	l.mu.Lock()
	before := l.port
	l.port = port
	l.mu.Unlock()
	if port.state == lanport.Forwarding && before.state != port.state { // alone there is nobody, or a cable plugged in just now
		l.sw.Forwards()
	}
	if port.state != lanport.Listening {
		l.decide()
	}
	if before.state != port.state {
		l.node.log.Info("the port to the LAN", "state", port.state.String(), "was", before.state.String(), "others", len(beside))
	}
}

// hear takes what came in from the LAN, and reports whether it counts.
func (l *lanSide) hear(now time.Time, payload []byte) bool {
	if !l.looks.AllowN(now, 1) {
		return false
	}
	s, raw, ok := l.verify(payload)
	if !ok || !l.machine.Hear(now, s) {
		return false
	}
	l.keep(signedStatement{s, raw})
	return true
}

// verify checks a statement with its signature, of a member that may bridge.
func (l *lanSide) verify(payload []byte) (s lanport.Statement, raw []byte, ok bool) {
	members := l.members.Load()
	if members == nil {
		return s, nil, false
	}
	return verifyStatement(payload, l.network, func(id lanport.ID) ed25519.PublicKey { return (*members)[id] })
}

// verifyStatement parses a statement and checks its signature; nil is the key of those
// who make none.
func verifyStatement(b []byte, network keys.NetworkID, keyOf func(lanport.ID) ed25519.PublicKey) (s lanport.Statement, raw []byte, ok bool) {
	s, rest, err := lanport.Parse(b)
	if err != nil || len(rest) < ed25519.SignatureSize {
		return s, nil, false
	}
	text := b[:len(b)-len(rest)]
	key := keyOf(s.From)
	if key == nil || !ed25519.Verify(key, signedText(network, text), rest[:ed25519.SignatureSize]) {
		return s, nil, false
	}
	return s, b[:len(text)+ed25519.SignatureSize], true
}

func signedText(network keys.NetworkID, text []byte) []byte {
	return append(append([]byte(lanContext), network[:]...), text...)
}

// say signs a statement and sends it out of the TAP. Others learn of it over the overlay
// if it says something new.
func (l *lanSide) say(s *lanport.Statement) {
	text := s.Append(nil)
	raw := append(text, ed25519.Sign(l.node.identity.Sign, signedText(l.network, text))...)
	if err := l.sw.Say(l2.LANFrame(nil, macOf(l.node.self), raw)); err != nil {
		l.node.log.Debug("speak on the LAN", "err", err)
	}
	l.keep(signedStatement{*s, raw})
}

// keep has the newest of each for the control goroutine, and wakes it for what is new.
func (l *lanSide) keep(s signedStatement) {
	l.mu.Lock()
	old, known := l.latest[s.From]
	l.latest[s.From] = s
	news := !known || !old.Same(&s.Statement)
	if news {
		l.version++
	}
	l.mu.Unlock()
	if news {
		l.node.wake()
	}
}

// leave stops forwarding and then says so, so that another can begin at once.
func (l *lanSide) leave() {
	l.sw.Shut(true)
	if l.up.Load() {
		l.say(l.machine.Leave())
	}
}

// snapshot is what was said, ours last, and what the port does.
func (l *lanSide) snapshot() (list []signedStatement, version int, port lanPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	self := lanport.ID(l.node.self)
	for id, s := range l.latest {
		if id != self {
			list = append(list, s)
		}
	}
	if own, ok := l.latest[self]; ok {
		list = append(list, own)
	}
	return list, l.version, l.port
}
