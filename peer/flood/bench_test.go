package flood

import (
	"testing"
	"time"
)

// What it costs a node of 200 to decide on a copy, without the signature.
func BenchmarkAccept(b *testing.B) {
	s := newSim(b, size, 1)
	n, origin := s.nodes[0], s.nodes[1]
	c := Copy{Name: Name{origin.id, 1, 0}, Part: Part{0, place(n.id) + 1<<61}, Frame: make([]byte, 60)}
	body := c.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		c.Number++
		s.now = s.now.Add(10 * time.Millisecond)
		if n.m.Judge(origin.id, &c, s.now) != Verify {
			b.Fatal("not to be verified")
		}
		n.m.Accept(origin.id, &c, body, s.now)
		n.m.Tick(s.now)
	}
}

// What it costs to look at a copy that has come before.
func BenchmarkDuplicate(b *testing.B) {
	s := newSim(b, size, 1)
	n, origin := s.nodes[0], s.nodes[1]
	c := Copy{Name: Name{origin.id, 1, 1}, Part: nowhere, Frame: make([]byte, 60)}
	n.m.Accept(origin.id, &c, c.Append(nil), s.now)
	b.ReportAllocs()
	for b.Loop() {
		n.m.Judge(origin.id, &c, s.now)
	}
}
