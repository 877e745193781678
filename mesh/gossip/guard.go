package gossip

import (
	"bytes"
	"time"

	"meshd/keys"
)

// The reasons for which the guard drops a packet or a message in it.
const (
	dropStranger     = "stranger"      // not from a member, or from ourselves
	dropRate         = "rate"          // too many packets or bytes from one member
	dropSize         = "size"          // larger than a packet can be
	dropLabel        = "label"         // another network's, or none
	dropMalformed    = "malformed"     // of a kind or form that we do not use
	dropUnknown      = "unknown-name"  // about somebody who is no member
	dropForged       = "forged-source" // in another's name, or for an address that is not the member's
	dropIncarnation  = "incarnation"   // grows faster than an honest one
	dropBudget       = "budget"        // too many accusations or errands from one member
	dropContradicted = "contradicted"  // dead, but we know better
	dropPanic        = "panic"         // a fault of ours; see the log
	dropFull         = "queue-full"    // memberlist does not keep up
)

// guard decides what of a member's packet reaches memberlist. It is pure.
type guard struct {
	network   keys.NetworkID
	table     *table
	reachable func(keys.NodeID) bool
	drop      func(reason string)
}

// admit returns a packet that says what from may say and nothing else, encoded anew, or nil.
func (g *guard) admit(from keys.NodeID, packet []byte, now time.Time) []byte {
	hop := g.table.peers[from.String()]
	if hop == nil || hop == g.table.self {
		g.drop(dropStranger)
		return nil
	}
	if len(packet) > MaxPacket {
		g.drop(dropSize)
		return nil
	}
	if !hop.packets.AllowN(now, 1) || !hop.bytes.AllowN(now, len(packet)) {
		g.drop(dropRate)
		return nil
	}
	body, ok := cutLabel(packet, g.network)
	if !ok {
		g.drop(dropLabel)
		return nil
	}
	messages, err := parsePacket(body)
	if err != nil {
		g.drop(dropMalformed)
		return nil
	}
	if !g.table.sparse && since(hop.heard, now) >= greetAfter { // else Returned says so
		g.table.greet(hop)
	}
	hop.heard = now
	var parts [][]byte
	for i := range messages {
		m := &messages[i]
		if reason := g.judge(hop, m, now); reason != "" {
			g.drop(reason)
			continue
		}
		parts = append(parts, m.append(nil))
	}
	if len(parts) == 0 {
		return nil
	}
	return joinParts(nil, parts)
}

func parsePacket(body []byte) ([]message, error) {
	parts, err := splitPacket(body)
	if err != nil {
		return nil, err
	}
	messages := make([]message, 0, len(parts))
	for _, p := range parts {
		m, err := parseMessage(p)
		if err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// judge says why a message is dropped, or "". It may turn a message into a weaker one.
func (g *guard) judge(hop *peer, m *message, now time.Time) string {
	switch m.kind {
	case kindPing:
		return g.judgePing(hop, m)
	case kindIndirectPing:
		return g.judgeErrand(hop, m, now)
	case kindAck, kindNack:
		if len(m.meta) > 0 {
			return dropMalformed
		}
		return ""
	case kindAlive:
		return g.judgeAlive(hop, m, now)
	case kindSuspect, kindDead:
		return g.judgeAccusation(hop, m, now)
	}
	return dropMalformed
}

// judgePing: the answer goes to who asks, and to nobody else.
func (g *guard) judgePing(hop *peer, m *message) string {
	if m.node != g.table.self.name {
		return dropUnknown
	}
	if !m.source.is(hop) {
		return dropForged
	}
	return ""
}

func (g *guard) judgeErrand(hop *peer, m *message, now time.Time) string {
	target := g.table.peers[m.node]
	if target == nil || target == g.table.self || target == hop {
		return dropUnknown
	}
	if !m.source.is(hop) || m.port != port || !bytes.Equal(m.addr, target.addr[:]) {
		return dropForged
	}
	if !hop.errands.AllowN(now, 1) {
		return dropBudget
	}
	target.errand = now
	return ""
}

func (g *guard) judgeAlive(hop *peer, m *message, now time.Time) string {
	p := g.table.peers[m.node]
	if p == nil {
		return dropUnknown
	}
	if len(m.meta) > 0 || !acceptVersions(m.versions) {
		return dropMalformed
	}
	if m.port != port || !bytes.Equal(m.addr, p.addr[:]) {
		return dropForged
	}
	if !p.believe(m.incarnation, p == hop, now) {
		return dropIncarnation
	}
	p.confirmed = p.confirmed || m.incarnation > fedIncarnation
	return ""
}

// judgeAccusation: only a member itself may say that it has left, and to us. Every other "dead" is a suspicion here, which
// the accused can refute; where it is well founded, others suspect as well and the timers run everywhere.
func (g *guard) judgeAccusation(hop *peer, m *message, now time.Time) string {
	p := g.table.peers[m.node]
	if p == nil {
		return dropUnknown
	}
	if p == hop {
		return g.judgeGoodbye(hop, m, now)
	}
	if m.kind == kindDead {
		if p != g.table.self && g.knowsBetter(p, now) {
			return dropContradicted
		}
		m.kind = kindSuspect
	}
	if m.from == m.node { // a goodbye at second hand
		m.from = hop.name
	}
	if g.table.peers[m.from] == nil {
		return dropUnknown
	}
	if !hop.accusations.AllowN(now, 1) {
		return dropBudget
	}
	if !p.believe(m.incarnation, false, now) {
		return dropIncarnation
	}
	p.suspected = now
	return ""
}

func (g *guard) judgeGoodbye(hop *peer, m *message, now time.Time) string {
	if m.kind != kindDead || m.from != m.node {
		return dropForged
	}
	if !hop.believe(m.incarnation, true, now) {
		return dropIncarnation
	}
	m.incarnation = hop.incarnation // it may not know what others have made of it
	hop.left = now
	return ""
}

func (g *guard) knowsBetter(p *peer, now time.Time) bool {
	return since(p.heard, now) < heardFor || g.reachable(p.id)
}

// is says whether the source of a ping is this peer.
func (s source) is(p *peer) bool {
	return s.node == p.name && s.port == port && bytes.Equal(s.addr, p.addr[:])
}

// cutLabel takes memberlist's label header off: 244, length, label.
func cutLabel(packet []byte, network keys.NetworkID) ([]byte, bool) {
	if len(packet) < labelSize || packet[0] != kindLabel || int(packet[1]) != len(network) ||
		keys.NetworkID(packet[2:labelSize]) != network {
		return nil, false
	}
	return packet[labelSize:], true
}

func appendLabel(b []byte, network keys.NetworkID) []byte {
	return append(append(b, kindLabel, byte(len(network))), network[:]...)
}

const labelSize = 2 + len(keys.NetworkID{})
