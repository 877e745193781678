package l2

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A cable that joins the LANs of two members while a frame is on its way between them lets
// it go round, and nobody can tell: its station has been heard on one side only, and no
// statement has crossed the cable yet. What comes round is the same frame again.

const (
	// echoTime is within which time a BUM frame from the device that is one seen before is
	// taken for one that may have come round; hosts that repeat themselves in earnest (ARP,
	// mDNS, DHCP) wait longer.
	echoTime = 250 * time.Millisecond
	// echoHold is how long such a frame waits where statements are made: if it has come round,
	// the port has shut by then, or the member on the other side no longer takes it.
	echoHold = 100 * time.Millisecond
	// echoGap bounds how often we hail for such frames.
	echoGap = 20 * time.Millisecond
	// maxEchoes bounds the frames that wait; the others pass.
	maxEchoes = 64
)

// echoes knows the last BUM frames from the device by their hashes.
type echoes struct {
	seed   maphash.Seed
	hailed atomic.Int64 // when
	held   atomic.Int64 // how many wait
	met    atomic.Int64 // when members were last found beside us, or lost

	mu   sync.Mutex
	last [256]struct {
		sum uint64
		at  time.Duration
	}
}

func (e *echoes) init() { e.seed = maphash.MakeSeed() }

// again reports whether a frame was seen a moment ago, and notes it.
func (e *echoes) again(frame []byte, now time.Duration) bool {
	sum := maphash.Bytes(e.seed, frame)
	e.mu.Lock()
	defer e.mu.Unlock()
	l := &e.last[sum%uint64(len(e.last))]
	seen := l.sum == sum && l.at != 0 && now-l.at < echoTime
	l.sum, l.at = sum, max(now, 1)
	return seen
}

// mayRound takes account of a BUM frame from the device that may have come round. It says
// on the LAN that this member is there, so that a member on the other side of the loop drops
// what we send it, before the frame is there. Where statements are made the frame waits for
// what they bring about, and mayRound reports true.
func (p *pump) mayRound(v *view, f Frame, h Header, now time.Duration) bool {
	s := p.sw
	if p.from != &s.local || p.replays || p.inner || len(p.to) == 0 || !s.echoes.again(f.Data, now) {
		return false
	}
	if at := time.Duration(s.echoes.hailed.Load()); at == 0 || now-at >= echoGap {
		s.echoes.hailed.Store(int64(max(now, 1)))
		_ = s.Say(announcement(stationOf(h.VLAN, v.own.mac.onLAN()))) // what a host does not take comes round no more
	}
	if s.cfg.LAN == nil {
		return false
	}
	s.cfg.LAN.Suspect()
	if s.echoes.held.Load() >= maxEchoes {
		return false
	}
	s.echoes.held.Add(1)
	f.Data = slices.Clone(f.Data)
	s.where.mu.Lock()
	defer s.where.mu.Unlock()
	s.where.again = append(s.where.again, replay{from: p.from, frame: f, at: now + echoHold, echo: true})
	s.poke()
	return true
}

// joinedWith reports whether a remote was heard on our side a moment ago: what its LAN is
// to hear comes by that way, too.
func (s *Switch) joinedWith(r *RemotePort, vlan uint16, now time.Duration) bool {
	hold := loopHold
	if s.cfg.LAN != nil {
		hold = briefHold
	}
	if at := time.Duration(s.where.lastJoined.Load()); at == 0 || now-at >= hold {
		return false
	}
	s.where.mu.Lock()
	defer s.where.mu.Unlock()
	at, heard := s.where.joined[joint{r, vlan}]
	return heard && now-at < hold
}

// release sends what has waited, unless who is on the LAN has changed meanwhile: then it was a loop.
func (p *pump) release(r replay) {
	p.sw.echoes.held.Add(-1)
	if met := time.Duration(p.sw.echoes.met.Load()); met != 0 && met >= r.at-echoHold {
		p.sw.fromDevice.drop(looped)
		return
	}
	p.sw.viaPlugs(p, []Frame{r.frame})
}
