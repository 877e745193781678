package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"meshd/keys"
	"meshd/mesh/api"
	"meshd/nat-traversal"
	"meshd/peer"
	"meshd/peer/udp"
	"meshd/peer/way"
)

// kindElsewhere is the control message by which a member has others send to it
// from elsewhere (PROTOCOL.md, section 13), so that it learns what its NAT lets in.
const kindElsewhere = 9

// Steps of it, and the flags of the last.
const (
	elsewhereAsk  = 1 // to who has just answered our STUN request: answer it from elsewhere
	elsewhereSend = 2 // to a third: send the answer
	elsewhereSent = 3 // what was sent

	fromOtherPort = 1
	fromOtherHost = 2
)

// Bounds: what a member can have us send, and anybody can have sent to one host.
const (
	elsewhereEvery  = time.Minute
	elsewhereAsks   = 6  // of one member, in that time
	elsewhereToHost = 5  // datagrams to one address
	elsewhereInAll  = 60 // asks and datagrams
	elsewhereThirds = 2  // that are asked to send
	elsewhereKept   = 64 // asks that are remembered
	elsewhereWait   = 1200 * time.Millisecond
)

// elsewhere is the state of the asks that we answer (owned by the control
// goroutine) and of those that we make.
type elsewhere struct {
	asks  map[traversal.TxID]*elsewhereAsked
	spent counts

	mu      sync.Mutex
	waiting map[traversal.TxID]chan byte
}

// elsewhereAsked is an ask that we act on.
type elsewhereAsked struct {
	by    keys.NodeID
	flags byte
	at    time.Time
}

// counts are bounds over a while: what is spent, by whom.
type counts struct {
	since time.Time
	by    map[any]int
	all   int
}

// spend takes one from what is left to who, of a limit, until the while is over.
func (c *counts) spend(now time.Time, who any, limit int) bool {
	if c.by == nil || now.Sub(c.since) >= elsewhereEvery || now.Before(c.since) {
		*c = counts{since: now, by: map[any]int{}}
	}
	if c.by[who] >= limit || c.all >= elsewhereInAll {
		return false
	}
	c.by[who]++
	c.all++
	return true
}

// elsewhereMessage is one, without the control kind.
type elsewhereMessage struct {
	step  byte
	txid  traversal.TxID
	to    netip.AddrPort // steps 1 and 2
	flags byte           // step 3
}

func (m elsewhereMessage) append(b []byte) []byte {
	b = append(append(b, m.step), m.txid[:]...)
	if m.step == elsewhereSent {
		return append(b, m.flags)
	}
	family := byte(4)
	if m.to.Addr().Is6() {
		family = 6
	}
	b = binary.BigEndian.AppendUint16(append(b, family), m.to.Port())
	a := m.to.Addr().As16()
	return append(b, a[:]...)
}

var errElsewhere = errors.New("no such message")

func parseElsewhere(b []byte) (m elsewhereMessage, err error) {
	const head, addr = 13, 19
	if len(b) < head {
		return m, errElsewhere
	}
	m.step, m.txid = b[0], traversal.TxID(b[1:head])
	b = b[head:]
	switch {
	case m.step == elsewhereSent && len(b) == 1 && b[0]&^(fromOtherPort|fromOtherHost) == 0:
		m.flags = b[0]
		return m, nil
	case (m.step == elsewhereAsk || m.step == elsewhereSend) && len(b) == addr:
		a := netip.AddrFrom16([16]byte(b[3:]))
		if b[0] == 4 && a.Is4In6() {
			a = a.Unmap()
		} else if b[0] != 6 || a.Is4In6() {
			return elsewhereMessage{}, errElsewhere
		}
		m.to = netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[1:]))
		if traversal.UsableEndpoint(m.to) {
			return m, nil
		}
	}
	return elsewhereMessage{}, errElsewhere
}

// handleElsewhere takes a message of a member.
func (n *Node) handleElsewhere(from *peer.Remote, body []byte) {
	m, err := parseElsewhere(body)
	if err != nil {
		return
	}
	now := time.Now()
	switch m.step {
	case elsewhereAsk:
		if n.maySendTo(m.to) {
			n.sendElsewhere(from, m, now)
		}
	case elsewhereSend:
		e := &n.state.elsewhere
		if n.maySendTo(m.to) && e.spent.spend(now, from.ID, elsewhereAsks) && e.spent.spend(now, m.to.Addr(), elsewhereToHost) {
			if answer, ok := traversal.Answer(traversal.Request(m.txid), m.to); ok {
				n.engine.Send(m.to, answer)
				sendControl(from, kindElsewhere, elsewhereMessage{step: elsewhereSent, txid: m.txid, flags: fromOtherHost}.append(nil))
			}
		}
	case elsewhereSent:
		n.elsewhereSent(m)
	}
}

// maySendTo holds what others name to where a NAT of the internet can be: not the
// mesh, and nobody's LAN.
func (n *Node) maySendTo(to netip.AddrPort) bool {
	for _, p := range n.prefixes() {
		if p.Contains(to.Addr()) {
			return false
		}
	}
	return traversal.Global(to.Addr())
}

// sendElsewhere answers once more a request that we have just answered, from
// another port, and has others do so. Only who got our answer knows its id, so
// that nobody can have somebody else sent to.
func (n *Node) sendElsewhere(by *peer.Remote, m elsewhereMessage, now time.Time) {
	e := &n.state.elsewhere
	if e.asks == nil {
		e.asks = map[traversal.TxID]*elsewhereAsked{}
	}
	asked := e.asks[m.txid]
	if asked != nil { // repeated
		sendControl(by, kindElsewhere, elsewhereMessage{step: elsewhereSent, txid: m.txid, flags: asked.flags}.append(nil))
		return
	}
	for txid, old := range e.asks {
		if now.Sub(old.at) > elsewhereEvery {
			delete(e.asks, txid)
		}
	}
	if len(e.asks) >= elsewhereKept || !n.engine.AnsweredSTUN(m.txid, m.to) || !e.spent.spend(now, by.ID, elsewhereAsks) {
		return
	}
	asked = &elsewhereAsked{by: by.ID, at: now}
	e.asks[m.txid] = asked
	if e.spent.spend(now, m.to.Addr(), elsewhereToHost) && n.fromOtherPort(m) {
		asked.flags |= fromOtherPort
	}
	thirds := 0
	for id, third := range n.state.members {
		st := third.remote.Status()
		if id == by.ID || !st.Up || thirds == elsewhereThirds || way.ClassOf(st.Endpoint) != way.Direct {
			continue
		}
		if sendControl(third.remote, kindElsewhere, elsewhereMessage{step: elsewhereSend, txid: m.txid, to: m.to}.append(nil)) {
			thirds++
		}
	}
	sendControl(by, kindElsewhere, elsewhereMessage{step: elsewhereSent, txid: m.txid, flags: asked.flags}.append(nil))
}

// fromOtherPort sends the answer from a port that nobody has sent to.
func (n *Node) fromOtherPort(m elsewhereMessage) (sent bool) {
	conns, err := n.cfg.Host.Listen(netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
	if err != nil {
		return false
	}
	answer, ok := traversal.Answer(traversal.Request(m.txid), m.to)
	for _, c := range conns {
		if ok && c.LocalAddr().Addr().Is4() == m.to.Addr().Is4() {
			sent = c.Send([]udp.Packet{{Addr: m.to, Data: answer}}) == nil
		}
		_ = c.Close()
	}
	return sent
}

// elsewhereSent takes the word that something was sent: for us, or for who asked us.
func (n *Node) elsewhereSent(m elsewhereMessage) {
	e := &n.state.elsewhere
	if asked := e.asks[m.txid]; asked != nil {
		asked.flags |= m.flags & fromOtherHost
		if by := n.state.members[asked.by]; by != nil {
			sendControl(by.remote, kindElsewhere, elsewhereMessage{step: elsewhereSent, txid: m.txid, flags: asked.flags}.append(nil))
		}
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.waiting[m.txid]; c != nil {
		select {
		case c <- m.flags:
		default:
		}
	}
}

// askElsewhere has the member that answered a request answer from elsewhere, and
// returns what was sent.
func (n *Node) askElsewhere(ctx context.Context, member *peer.Remote, txid traversal.TxID, seen netip.AddrPort) (port, host bool, err error) {
	e := &n.state.elsewhere
	c := make(chan byte, 8)
	e.mu.Lock()
	if e.waiting == nil {
		e.waiting = map[traversal.TxID]chan byte{}
	}
	e.waiting[txid] = c
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.waiting, txid)
		e.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, elsewhereWait)
	defer cancel()
	repeat := time.NewTicker(300 * time.Millisecond)
	defer repeat.Stop()
	var flags byte
	heard := false
	for flags != fromOtherPort|fromOtherHost {
		if !heard {
			sendControl(member, kindElsewhere, elsewhereMessage{step: elsewhereAsk, txid: txid, to: seen}.append(nil))
		}
		select {
		case f := <-c:
			flags, heard = flags|f, true
		case <-repeat.C:
		case <-ctx.Done():
			if !heard {
				return false, false, &api.Error{Code: api.CodeNotConnected, What: "netcheck", Why: "the member does not answer"}
			}
			return flags&fromOtherPort != 0, flags&fromOtherHost != 0, nil
		}
	}
	return true, true, nil
}
