package flood

import (
	"bytes"
	"slices"
	"time"

	"meshd/keys"
)

// missing is a frame that others have and this node has not.
type missing struct {
	first   *node   // who spoke of it first, and is charged for the memory
	sources []*node // who has it
	asked   int
	due     time.Time // when to ask
	until   time.Time // when to give up
}

// Tell is a message to a member.
type Tell struct {
	To      Member
	Message Message
}

// Answer is a copy for who has asked. It is not to be written to.
type Answer struct {
	To   Member
	Body []byte
}

// hold keeps a frame for those who will ask. origin nil: it is our own.
func (m *Machine) hold(origin *node, name Name, body []byte, sent int, now time.Time) {
	h := &held{name: name, body: bytes.Clone(body), since: now, sent: sent}
	SetPart(h.body, nowhere)
	m.holding[name] = h
	m.order = append(m.order, h)
	m.bytes += h.cost()
	if origin != nil {
		origin.held = append(origin.held, h)
		origin.bytes += h.cost()
		for origin.bytes > maxHeldOf {
			m.release(origin.held[0])
		}
	}
	for m.bytes > maxHeld {
		m.release(m.order[0])
	}
	if m.tellAt.IsZero() {
		m.tellAt = now.Add(tellAfter + m.jitter())
	}
}

func (h *held) frame() []byte { return h.body[HeaderLen:] }

func (h *held) cost() int { return len(h.body) + entryCost }

// release lets a frame go. It stays in the order, without what it took, unless it is the
// oldest.
func (m *Machine) release(h *held) {
	if m.holding[h.name] != h {
		return
	}
	delete(m.holding, h.name)
	m.bytes -= h.cost()
	if n := m.nodes[h.name.Origin]; n != nil {
		if i := slices.Index(n.held, h); i >= 0 {
			n.bytes -= h.cost()
			n.held = slices.Delete(n.held, i, i+1)
		}
	}
	h.body, h.has = nil, nil
	for len(m.order) > 0 && m.order[0].body == nil {
		m.order[0] = nil
		m.order = m.order[1:]
	}
}

// noteHas remembers that a member has a frame.
func (m *Machine) noteHas(name Name, id keys.NodeID) {
	if h := m.holding[name]; h != nil && !slices.Contains(h.has, id) && len(h.has) < 4*maxSources {
		h.has = append(h.has, id)
	}
}

// found ends the search for a frame.
func (m *Machine) found(name Name) {
	if x := m.missing[name]; x != nil {
		x.first.missing--
		delete(m.missing, name)
	}
}

// Hear takes a member's message and returns the copies that it asks for.
func (m *Machine) Hear(from keys.NodeID, msg Message, now time.Time) []Answer {
	by := m.nodes[from]
	if by == nil || !by.messages.take(now, messageTerms) {
		return nil
	}
	var answers []Answer
	for _, name := range msg.Names {
		switch msg.Step {
		case Have:
			m.noteHas(name, from)
			m.search(name, by, now)
		case Want:
			h := m.holding[name]
			if h == nil || h.sent >= Fanout || !by.member.Wants(h.frame()) || !by.answers.take(now, answerTerms) {
				continue
			}
			h.sent++
			m.stats.Answered++
			answers = append(answers, Answer{by.member, h.body})
		}
	}
	return answers
}

// search begins to look for a frame that by has, unless it is here.
func (m *Machine) search(name Name, by *node, now time.Time) {
	origin := m.nodes[name.Origin]
	if origin == nil || name.Epoch < origin.epoch || name.Epoch == origin.epoch && origin.window.seen(name.Number) {
		return
	}
	x := m.missing[name]
	if x == nil {
		if by.missing >= maxMissing || len(m.missing) >= maxAllMissed {
			return
		}
		by.missing++
		x = &missing{first: by, due: now.Add(askAfter), until: now.Add(holdFor)}
		m.missing[name] = x
	}
	if len(x.sources) < maxSources && !slices.Contains(x.sources, by) {
		x.sources = append(x.sources, by)
	}
}

// Tick does what is due, and says when to call it next; zero: when something has come.
func (m *Machine) Tick(now time.Time) (tells []Tell, next time.Time) {
	if !m.tellAt.IsZero() && !now.Before(m.tellAt) {
		m.tellAt = time.Time{}
		tells = m.tell()
	}
	wants, next := m.ask(now)
	tells = append(tells, wants...)
	for len(m.order) > 0 && (m.order[0].body == nil || now.Sub(m.order[0].since) >= holdFor) {
		if h := m.order[0]; h.body != nil {
			m.release(h)
			continue
		}
		m.order = m.order[1:]
	}
	next = earlier(next, m.tellAt)
	if len(m.order) > 0 {
		next = earlier(next, m.order[0].since.Add(holdFor))
	}
	for _, n := range m.ring {
		n.caught = n.caught && now.Sub(n.caughtAt) < caughtFor
	}
	return tells, next
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// tell says to each neighbour what it may not have. Who has sent all the copies that it
// may does not offer any.
func (m *Machine) tell() []Tell {
	names := map[*node][]Name{}
	for _, h := range slices.Backward(m.order) {
		if h.told {
			break // and so were all before
		}
		h.told = true
		if h.body == nil || h.sent >= Fanout {
			continue
		}
		for _, n := range m.concerned(h) {
			if h.name.Origin != n.id && !slices.Contains(h.has, n.id) {
				names[n] = append(names[n], h.name)
			}
		}
	}
	var tells []Tell
	for _, n := range m.ring {
		tells = appendTells(tells, n.member, Have, names[n])
	}
	m.stats.Told += uint64(len(tells))
	return tells
}

// concerned are those that hear from this node of a frame: neighbours that it is for. Where
// it is for few of them, all that it is for are joined in the same manner: the next of them
// on the circle, and those 2, 4, 8 ... further, each or one before the next that has a session.
func (m *Machine) concerned(h *held) (list []*node) {
	for _, n := range m.ring {
		if n.member.Neighbour() && n.up() && n.member.Wants(h.frame()) {
			list = append(list, n)
		}
	}
	if len(list) >= minTold {
		return list
	}
	all := m.ring.wanting(h.frame())
	if len(all) == len(m.ring) {
		return list // it is for all
	}
	at, _ := all.search(m.self)
	for step := 1; step <= len(all) && len(list) < minTold; step *= 2 {
		next := all[(at+step-1)%len(all)]
		for i := step; i < min(2*step, len(all)+1) && !next.up(); i++ {
			if n := all[(at+i-1)%len(all)]; n.up() {
				next = n
			}
		}
		if !slices.Contains(list, next) && !next.member.Away() {
			list = append(list, next)
		}
	}
	return list
}

// appendTells puts names into as many messages as they take.
func appendTells(tells []Tell, to Member, step Step, names []Name) []Tell {
	if len(names) == 0 {
		return tells
	}
	sortNames(names)
	return append(tells, Tell{to, Message{step, names}})
}

// ask asks for what is missing and due.
func (m *Machine) ask(now time.Time) (tells []Tell, next time.Time) {
	wants := map[*node][]Name{}
	for name, x := range m.missing {
		if !now.Before(x.until) {
			m.stats.Missed++
			m.found(name)
			continue
		}
		most := min(maxAsked, 2*len(x.sources)) // who only says that it has a frame is not asked on and on
		if !now.Before(x.due) && x.asked < most {
			n := x.sources[x.asked%len(x.sources)]
			x.asked++
			x.due = now.Add(askAgain)
			wants[n] = append(wants[n], name)
			m.stats.Asked++
		}
		if x.asked < most {
			next = earlier(next, x.due)
		}
		next = earlier(next, x.until)
	}
	for n, names := range wants {
		tells = appendTells(tells, n.member, Want, names)
	}
	return tells, next
}
