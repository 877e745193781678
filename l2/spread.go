package l2

// How a frame for all leaves in a large mesh: once, to a port that stands for all who
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

// spread replaces those that were aimed at and take copies by everyone, where they are
// many, and most of those that everyone reaches. A VLAN that is not for all of these is
// not told to all.
func (p *pump) spread(v *view, vlan uint16) {
	s := p.sw
	if s.everyone == nil || len(p.to) <= s.cfg.SpreadAbove {
		return
	}
	reached := 0
	for _, r := range v.ports {
		at := r.at.Load()
		if at == nil || !at.takesCopies() {
			continue
		}
		if !at.mayUse(vlan) {
			return
		}
		reached++
	}
	aimed := 0
	for _, t := range p.to {
		if t.at.takesCopies() {
			aimed++
		}
	}
	if aimed <= s.cfg.SpreadAbove || 2*aimed <= reached {
		return
	}
	others := p.to[:0]
	for _, t := range p.to {
		if !t.at.takesCopies() {
			others = append(others, t)
		}
	}
	clear(p.to[len(others):])
	p.to = others
	p.aim(s.everyone, vlan)
}
