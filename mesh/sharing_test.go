package mesh

import (
	"testing"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/lanport"
	"meshd/peer"
)

// TestSharedLANs is about which members share a LAN, for all that they say.
func TestSharedLANs(t *testing.T) {
	const a, b, c, x, y = 1, 2, 3, 8, 9
	// step is what somebody says, and after how much time.
	type step struct {
		after   time.Duration
		who     byte
		segment byte
		hears   []byte
	}
	both := []step{{0, a, 1, []byte{b}}, {0, b, 1, []byte{a}}}
	with := func(more ...step) []step { return append(append([]step(nil), both...), more...) }
	for _, test := range []struct {
		what  string
		steps []step
		after time.Duration
		want  map[byte]byte
	}{
		{"two hear each other", both, time.Hour, map[byte]byte{a: a, b: a}},
		{"one is alone", []step{{0, a, 1, nil}}, 0, nil},
		{"one says that it hears another", []step{{0, a, 1, nil}, {0, x, 1, []byte{a}}}, 0, nil},
		{"a stranger takes the name of the LAN and hears all", with(step{0, x, 1, []byte{a, b}}), 0, map[byte]byte{a: a, b: a}},
		{"a stranger that is the lowest", []step{{0, b, 1, []byte{c}}, {0, c, 1, []byte{b}}, {0, a, 1, []byte{b, c}}}, 0, map[byte]byte{b: b, c: b}},
		{"two strangers take the name, and hear each other", with(step{0, x, 1, []byte{a, b, y}}, step{0, y, 1, []byte{a, b, x}}), 0, map[byte]byte{a: a, b: a, x: x, y: x}},
		{"names differ", []step{{0, a, 1, []byte{b}}, {0, b, 2, []byte{a}}}, 0, nil},
		{"three in a row", []step{{0, a, 1, []byte{b}}, {0, b, 1, []byte{a, c}}, {0, c, 1, []byte{b}}}, 0, map[byte]byte{a: a, b: a, c: a}},
		{"one has died, and is not heard any more", with(step{time.Hour, b, 1, nil}), lingers - 1, map[byte]byte{a: a, b: a}},
		{"after a while", with(step{time.Hour, b, 1, nil}), lingers, nil},
		{"the LAN was split", with(step{time.Hour, b, 1, nil}, step{0, a, 1, nil}), 0, nil},
		{"one goes elsewhere", with(step{time.Hour, b, 2, nil}), 0, nil},
		{"one that has left still says that it hears the other", with(step{time.Hour, a, 1, nil}, step{lingers, b, 1, []byte{a, x}}), 0, nil},
		{"it says so for ever", with(step{time.Hour, a, 1, nil}, step{lingers / 2, b, 1, []byte{a, x}}, step{lingers / 2, b, 1, []byte{a}}), 0, nil},
		{"it comes back", with(step{time.Hour, b, 1, nil}, step{lingers, b, 1, []byte{a}}), lingers, map[byte]byte{a: a, b: a}},
	} {
		now := time.Unix(1e9, 0)
		l := lans{said: map[keys.NodeID]*lanSaid{}}
		for _, s := range test.steps {
			now = now.Add(s.after)
			l.tidy(now)
			st := lanport.Statement{From: lanport.ID{s.who}, Segment: lanport.Segment{s.segment}, State: lanport.Blocked}
			for _, id := range s.hears {
				st.Heard = append(st.Heard, lanport.ID{id})
			}
			if old := l.said[keys.NodeID{s.who}]; old != nil {
				l.parts(old, now)
			}
			l.said[keys.NodeID{s.who}] = &lanSaid{Statement: st}
		}
		now = now.Add(test.after)
		l.tidy(now)
		got := l.shared(now)
		if len(got) != len(test.want) {
			t.Errorf("%s: %v, want %v", test.what, got, test.want)
		}
		for id, lan := range test.want {
			if got[keys.NodeID{id}] != (keys.NodeID{lan}) {
				t.Errorf("%s: %d is on the LAN of %d, want %d", test.what, id, got[keys.NodeID{id}][0], lan)
			}
		}
		if now = now.Add(lingers); len(l.met) > 0 && (!l.tidy(now) || len(l.met) > 0) {
			t.Errorf("%s: %d are remembered", test.what, len(l.met))
		}
	}
}

// Who has lost the role is on no LAN, whatever it has said before.
func TestNoLANWithoutRole(t *testing.T) {
	n := founder(t)
	id := n.admit(t, peer.Member).ID
	n.state.lans.said = map[keys.NodeID]*lanSaid{id: {Statement: lanport.Statement{From: lanport.ID(id), Segment: lanport.Segment{1}}}}
	n.state.lans.names = map[keys.NodeID]keys.NodeID{id: id, n.self: id}
	if a := n.allowFor(n.state.dir.Member(id)); a.Bridge || a.LAN != "" || a.Segment != (l2.Segment{}) {
		t.Errorf("%+v", a)
	}
	if a := n.allowFor(n.state.dir.Member(n.self)); !a.Bridge || a.LAN != id.String() {
		t.Errorf("who has it: %+v", a)
	}
}
