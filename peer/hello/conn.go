package hello

import (
	"net/netip"
	"slices"
	"time"

	"github.com/flynn/noise"

	"meshd/peer/way"
)

const (
	maxConns  = 64
	perSource = 16 // of them from one source, of which one unfinished

	// A connection is not displaced within one round trip of its beginning: by
	// another of its source (several nodes behind one NAT that start together), or,
	// when the table is full, by anybody's.
	sourceGrace = 250 * time.Millisecond
	tableGrace  = time.Second
)

// conn is one meeting, from an open with a valid cookie to ten seconds later.
type conn struct {
	src    netip.AddrPort
	id     [8]byte
	began  time.Time
	seed   [keyLen]byte
	open   [keyLen]byte          // Noise message 1
	answer []byte                // repeated when the open is
	state  *noise.HandshakeState // waits for the proof; nil when it must be made again, or is done with
	result []byte                // once a proof was judged: repeated when the proof is
}

// begin brings the Noise state to where it waits for the proof.
func (c *conn) begin(static noise.DHKey, a answer) bool {
	state, err := newHandshake(static, c.seed, false)
	if err != nil {
		return false
	}
	if _, _, _, err = state.ReadMessage(nil, c.open[:]); err != nil {
		return false
	}
	msg := appendHeader(make([]byte, 0, answerLen), StepAnswer, c.id)
	if msg, _, _, err = state.WriteMessage(msg, a.append(nil)); err != nil {
		return false
	}
	c.answer, c.state = msg, state
	return true
}

func (c *conn) finished() bool { return c.result != nil }

// connTable bounds the state of a Responder: 64 connections in all, one
// unfinished from each source, so that whoever holds few addresses cannot keep
// the others out. It is short enough to be searched from end to end; the oldest come first.
type connTable struct{ all []*conn }

func (t *connTable) find(src netip.AddrPort, id [8]byte) *conn {
	for _, c := range t.all {
		if c.id == id && c.src == src {
			return c
		}
	}
	return nil
}

func (t *connTable) expire(now time.Time) {
	t.all = slices.DeleteFunc(t.all, func(c *conn) bool {
		age := now.Sub(c.began)
		return age < 0 || age >= patience
	})
}

// admit makes room for a new connection, or says that there is none.
func (t *connTable) admit(src netip.AddrPort, id [8]byte, now time.Time) bool {
	from, count := way.Source(src.Addr()), 0
	for i, c := range t.all {
		if way.Source(c.src.Addr()) != from {
			continue
		}
		if !c.finished() || c.id == id && c.src == src {
			return t.displace(i, sourceGrace, now)
		}
		count++
	}
	if count >= perSource {
		return t.displace(slices.IndexFunc(t.all, func(c *conn) bool {
			return way.Source(c.src.Addr()) == from
		}), tableGrace, now)
	}
	if len(t.all) < maxConns {
		return true
	}
	if i := slices.IndexFunc(t.all, (*conn).finished); i >= 0 && t.displace(i, tableGrace, now) {
		return true
	}
	return t.displace(0, tableGrace, now)
}

// displace removes the connection at i if it has had its time.
func (t *connTable) displace(i int, grace time.Duration, now time.Time) bool {
	if now.Sub(t.all[i].began) < grace {
		return false
	}
	t.all = slices.Delete(t.all, i, i+1)
	return true
}
