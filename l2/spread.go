package l2

// How a frame for many leaves in a large mesh: once, to a port that stands for all who
// pass copies on, instead of once to each. Each receiver judges it by the member that it
// came from, as if it had come straight from there.

// DefaultSpreadAbove is how many remotes are sent a frame each before it is spread.
const DefaultSpreadAbove = 8

// Copied is a Port to a remote that may be reached by Config.Everyone as well.
type Copied interface {
	Port
	// TakesCopies says whether it is, for now.
	TakesCopies() bool
}

// newEveryone makes what stands for all remotes that take copies.
func (s *Switch) newEveryone(p Port) *RemotePort {
	if p == nil {
		return nil
	}
	r := &RemotePort{sw: s, sent: make([]mark, s.queues+1)}
	r.remote = r
	r.at.Store(&attachment{lanes: lanesOf(p, s.queues)})
	return r
}

// takesCopies says whether what goes to everyone goes to this remote too.
func (a *attachment) takesCopies() bool { return a.copied != nil && a.copied.TakesCopies() }

// Wants says whether a frame for many, of whatever member, is to go to the remote too: not
// in a VLAN that it may not use, nor to a group to which nobody listens there, nor for one
// unknown station if no unheard hosts can be there. It takes no lock.
func (r *RemotePort) Wants(frame []byte) bool {
	at := r.at.Load()
	h, ok := ParseHeader(frame)
	switch {
	case at == nil, !ok, !at.mayUse(h.VLAN):
		return false
	case !h.Dst.Multicast():
		return at.silent
	case snooped(h, frame):
		return group{reach: toListeners, key: stationOf(h.VLAN, h.Dst)}.reaches(r)
	}
	return true
}

// spread replaces those that were aimed at and take copies by everyone, where they are
// many. Who passes copies on leaves out those that do not want them (Wants). It reports
// whether it has done so.
func (p *pump) spread(vlan uint16) bool {
	s := p.sw
	if s.everyone == nil || len(p.to) <= s.cfg.SpreadAbove {
		return false
	}
	takers := 0
	for _, t := range p.to {
		if t.at.takesCopies() {
			takers++
		}
	}
	if takers <= s.cfg.SpreadAbove {
		return false
	}
	others := p.to[:0]
	for _, t := range p.to {
		if !t.at.takesCopies() {
			others = append(others, t)
		}
	}
	clear(p.to[len(others):])
	p.to = others
	return p.aim(s.everyone, vlan) == passed
}

// drop forgets where the frame in hand was to go.
func (p *pump) drop() {
	clear(p.to)
	clear(p.here)
	p.to, p.here = p.to[:0], p.here[:0]
}
