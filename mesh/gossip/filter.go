package gossip

import (
	"time"

	"meshd/keys"
)

// filter decides what of a packet that our memberlist writes goes out, and to whom. It is pure.
type filter struct {
	table     *table
	reachable func(keys.NodeID) bool
}

// outgoing is a packet for the wire, without label.
type outgoing struct {
	to     *peer
	packet []byte
}

// pass returns what goes out of a packet for a member. It takes away what is not news (members that we fed), what is about
// strangers, and deaths that we know to be wrong; and it adds, now and then, that we live and with which incarnation. So a
// member that believes something stale of us hears better from ourselves.
//
// memberlist talks to anybody, and a session with everybody would be the price. So what is for one who is no neighbour goes
// another way: news and errands to a neighbour, who is as good; and a ping is answered here (pings), as if it were well: its
// own neighbours watch it, and say so when it is not.
func (f filter) pass(to *peer, packet []byte, now time.Time) (out []outgoing, pings []message) {
	if len(packet) > 5 && packet[0] == kindChecksum { // for UDP; a session has its own
		packet = packet[5:]
	}
	split, err := splitPacket(packet)
	if err != nil {
		return nil, nil
	}
	var direct, around []message
	for _, part := range split {
		m, err := parseMessage(part)
		switch {
		case err != nil || !f.worthwhile(&m, now):
		case to.near || !f.table.sparse || m.kind == kindAck || m.kind == kindNack:
			direct = append(direct, m)
		case m.kind != kindPing:
			around = append(around, m)
		case f.must(to, &m, now):
			direct = append(direct, m)
		default:
			pings = append(pings, m)
		}
	}
	if packet := f.encode(to, direct, now); packet != nil {
		out = append(out, outgoing{to, packet})
	}
	if len(around) > 0 {
		if other := f.table.other(to, now, f.reachable); other != nil {
			out = append(out, outgoing{other, f.encode(other, around, now)})
		}
	}
	return out, pings
}

// must says whether a ping has to go although it is not for a neighbour: somebody wants to know, or we do.
func (f filter) must(to *peer, m *message, now time.Time) bool {
	return m.seq&ownPing != 0 || since(to.errand, now) < errandFor
}

// encode makes one packet, nil of nothing.
func (f filter) encode(to *peer, messages []message, now time.Time) []byte {
	if len(messages) == 0 {
		return nil
	}
	self := f.table.self
	var parts [][]byte
	told, size := false, labelSize+2
	for _, m := range messages {
		if m.node == self.name && (m.kind == kindAlive || m.kind == kindDead) {
			told = true
		}
		parts = append(parts, m.append(nil))
		size += 2 + len(parts[len(parts)-1])
	}
	if !told && self.left.IsZero() && self.incarnation > 0 &&
		(self.incarnation != to.toldIncarnation || since(to.told, now) >= tellInterval) {
		m := self.aliveMessage()
		if part := m.append(nil); size+2+len(part) <= MaxPacket && len(parts) < maxParts {
			parts = append(parts, part)
			to.told, to.toldIncarnation = now, self.incarnation
		}
	}
	return joinParts(nil, parts)
}

func (f filter) worthwhile(m *message, now time.Time) bool {
	if m.kind != kindAlive && m.kind != kindSuspect && m.kind != kindDead {
		return true
	}
	p := f.table.peers[m.node]
	if p == nil {
		return false
	}
	if p == f.table.self {
		p.incarnation = max(p.incarnation, m.incarnation)
		return true
	}
	switch m.kind {
	case kindAlive:
		return m.incarnation > fedIncarnation
	case kindDead:
		return since(p.left, now) < goodbyeFor || since(p.heard, now) >= heardFor && !f.reachable(p.id)
	}
	return true
}
