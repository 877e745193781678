package snoop

import (
	"bytes"
	"net/netip"
	"time"
)

// querier is another one, which asks in our place.
type querier struct {
	until              time.Duration // zero: there is none
	mac                [6]byte
	addr               netip.Addr
	version            uint8
	interval, response time.Duration
}

// ask begins the questions of a start, unless that is under way.
func (v *vlan) ask(now time.Duration) {
	for i := range v.families {
		if f := &v.families[i]; f.startup == 0 {
			f.startup, f.next = startupQueries, now
		}
	}
}

// asked takes another's query. Of queriers the one with the lowest address goes on (RFC 3376, 6.6.2); we have none in
// IPv4, and whoever has one goes before us, while of those that have none either, the lower MAC does.
func (t *Table) asked(v *vlan, f *family, from [6]byte, ally bool, m *Message, now time.Duration) {
	q := querier{mac: from, addr: m.Source, version: m.Version, interval: m.Interval, response: m.Response}
	if q.interval == 0 {
		q.interval, q.response = othersQuery, max(m.Response, othersResponse)
	}
	q.until = now + min(2*q.interval+q.response/2, ageMost)
	if !ally && !m.Source.IsUnspecified() {
		t.route(f, q.until, now)
	}
	ours := q
	ours.mac, ours.addr = t.mac, t.addr
	if !f.v6 {
		ours.addr = netip.IPv4Unspecified()
	}
	if q.before(&ours) && (f.other.until <= now || f.other.mac == from || q.before(&f.other)) {
		f.other = q
	}
	if f.other.mac != from || f.other.until <= now {
		return // it will hear us, or the other, and cease
	}
	if m.Group.IsValid() {
		// Somebody has left: who listens still says so (RFC 3376, 6.6.1).
		g := t.groups[Group{v.id, m.Group}]
		if g != nil && !m.Suppress {
			g.until, g.leaving = min(g.until, now+lastQueries*m.Response+lastEvery/2), true
		}
		if _, spoken := t.spoken[Group{v.id, m.Group}]; spoken {
			t.out = append(t.out, t.reports(v.id, f.v6, m.Version, []netip.Addr{m.Group}, Join)...)
		}
		return
	}
	f.answer = now + m.Response/4
}

// before reports whether q asks rather than o.
func (q *querier) before(o *querier) bool {
	switch {
	case q.addr == o.addr:
		return bytes.Compare(q.mac[:], o.mac[:]) < 0
	case q.addr.IsUnspecified():
		return false
	case o.addr.IsUnspecified():
		return true
	}
	return q.addr.Less(o.addr)
}

// advanceFamily does what is due of questions and answers, and returns when more will be.
func (t *Table) advanceFamily(v *vlan, f *family, now time.Duration) (next time.Duration) {
	next = never
	if f.router != 0 {
		if f.router <= now {
			f.router, t.set = 0, nil
		} else {
			next = f.router
		}
	}
	if f.other.until != 0 && f.other.until <= now { // it is silent: we ask
		f.other = querier{}
		f.startup, f.next = startupQueries, now
	}
	if f.next <= now {
		t.ask(v, f, now)
	}
	if f.answer != 0 && f.answer <= now {
		f.answer = 0
		t.speakAll(v, f)
	}
	if f.answer != 0 {
		next = min(next, f.answer)
	}
	if f.other.until != 0 {
		next = min(next, f.other.until)
	}
	return min(next, f.next)
}

// ask sends a general query, unless another asks, and the advertisement, and says again what hosts elsewhere listen to.
func (t *Table) ask(v *vlan, f *family, now time.Duration) {
	response, wait := queryResponse, queryEvery
	if f.startup > 0 {
		f.startup--
		response, wait = startupResponse, startupEvery
	}
	if f.startup == 0 {
		wait = queryEvery
	}
	f.next = now + wait
	t.out = append(t.out, t.advertisement(v.id, f.v6))
	if f.other.until <= now {
		t.out = append(t.out, t.query(v.id, f.v6, netip.Addr{}, response))
		t.speakAll(v, f)
	}
}
