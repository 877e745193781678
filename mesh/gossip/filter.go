package gossip

import "time"

// filter decides what of a packet that our memberlist writes goes out. It is pure.
type filter struct {
	table     *table
	reachable func(id *peer) bool
}

// pass returns the packet for the wire, without label, or nil. It takes away what is not news (members that we fed), what
// is about strangers, and deaths that we know to be wrong; and it adds, now and then, that we live and with which
// incarnation. So a member that believes something stale of us hears better from ourselves.
func (f filter) pass(to *peer, packet []byte, now time.Time) []byte {
	if len(packet) > 5 && packet[0] == kindChecksum { // for UDP; a session has its own
		packet = packet[5:]
	}
	split, err := splitPacket(packet)
	if err != nil {
		return nil
	}
	var parts [][]byte
	told, size := false, labelSize+2
	for _, part := range split {
		m, err := parseMessage(part)
		if err != nil || !f.worthwhile(&m) {
			continue
		}
		if m.node == f.table.self.name && (m.kind == kindAlive || m.kind == kindDead) {
			told = true
		}
		parts = append(parts, m.append(nil))
		size += 2 + len(parts[len(parts)-1])
	}
	if len(parts) == 0 {
		return nil
	}
	self := f.table.self
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

func (f filter) worthwhile(m *message) bool {
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
		return !f.reachable(p)
	}
	return true
}
