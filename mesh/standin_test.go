package mesh

import (
	"crypto/ed25519"
	"testing"
	"time"

	"meshd/keys"
	"meshd/l2/lanport"
)

// TestStandIn is about by whom a member is reached, for all that members say.
func TestStandIn(t *testing.T) {
	id := func(n byte) keys.NodeID { return keys.NodeID{n} }
	lan, other := lanport.Segment{1}, lanport.Segment{2}
	heard := func(ids ...byte) (list []lanport.ID) {
		for _, n := range ids {
			list = append(list, lanport.ID{n})
		}
		return list
	}
	// says is what a member says, and for how many seconds it has.
	type says struct {
		state     lanport.State
		segment   lanport.Segment
		forwarder byte
		heard     []lanport.ID
		ago       int
	}
	const a, b, x = 1, 2, 9
	for _, c := range []struct {
		what string
		said map[byte]says
		want byte // by whom b is reached
	}{
		{"it bridges alone", map[byte]says{b: {lanport.Forwarding, lan, b, nil, 1}}, b},
		{"another forwards, and is named", map[byte]says{
			a: {lanport.Forwarding, lan, a, heard(b), 2}, b: {lanport.Blocked, lan, a, heard(a), 1},
		}, a},
		{"it forwards itself", map[byte]says{
			a: {lanport.Blocked, lan, b, heard(b), 1}, b: {lanport.Forwarding, lan, b, heard(a), 2},
		}, b},
		{"it was killed while it forwarded, and another has taken over", map[byte]says{
			a: {lanport.Forwarding, lan, a, nil, 1}, b: {lanport.Forwarding, lan, b, heard(a), 9},
		}, a},
		{"the same, told in the other order", map[byte]says{
			a: {lanport.Forwarding, lan, a, nil, 9}, b: {lanport.Forwarding, lan, b, heard(a), 1},
		}, a},
		{"it has said goodbye", map[byte]says{
			a: {lanport.Forwarding, lan, a, nil, 1}, b: {lanport.Gone, lan, 0, heard(a), 2},
		}, a},
		{"its cable was pulled", map[byte]says{
			a: {lanport.Forwarding, lan, a, nil, 1}, b: {lanport.Alone, other, b, nil, 2},
		}, b},
		{"a LAN was split, and the name is not changed yet", map[byte]says{
			a: {lanport.Forwarding, lan, a, nil, 1}, b: {lanport.Forwarding, lan, b, nil, 1},
		}, b},
		{"a stranger to the LAN claims its name", map[byte]says{
			x: {lanport.Forwarding, lan, x, heard(b), 0}, b: {lanport.Forwarding, lan, b, nil, 5},
		}, b},
		{"a stranger claims the name of a LAN where it is not named", map[byte]says{
			x: {lanport.Forwarding, lan, x, heard(a, b), 0}, a: {lanport.Forwarding, lan, a, heard(b), 5}, b: {lanport.Blocked, lan, a, heard(a), 5},
		}, a},
		{"whom it names is on another LAN", map[byte]says{
			x: {lanport.Forwarding, other, x, heard(b), 0}, b: {lanport.Blocked, lan, x, heard(x), 5},
		}, b},
		{"whom it names does not forward", map[byte]says{
			a: {lanport.Blocked, lan, b, heard(b), 0}, b: {lanport.Blocked, lan, a, heard(a), 5},
		}, b},
		{"whom it names has said nothing", map[byte]says{b: {lanport.Blocked, lan, a, heard(a), 5}}, b},
	} {
		now := time.Unix(1e9, 0)
		l := lans{said: map[keys.NodeID]*lanSaid{}}
		for n, s := range c.said {
			st := lanport.Statement{From: lanport.ID{n}, Segment: s.segment, State: s.state, Heard: s.heard}
			if s.forwarder != 0 {
				st.Forwarder = lanport.ID{s.forwarder}
			}
			l.said[id(n)] = &lanSaid{Statement: st, since: now.Add(-time.Duration(s.ago) * time.Second)}
		}
		if got := l.standIn(id(b)); got != id(c.want) {
			t.Errorf("%s: by %d, want %d", c.what, got[0], c.want)
		}
	}
}

// TestRival is about who is asked for a sign of life, since another forwards for its LAN.
func TestRival(t *testing.T) {
	lan, other := lanport.Segment{1}, lanport.Segment{2}
	const a, b, x = 1, 2, 9
	forwards := func(from byte, segment lanport.Segment, heard ...lanport.ID) *lanSaid {
		return &lanSaid{Statement: lanport.Statement{From: lanport.ID{from}, Segment: segment, State: lanport.Forwarding, Heard: heard}}
	}
	blocks := func(s *lanSaid) *lanSaid { s.State = lanport.Blocked; return s }
	for what, c := range map[string]struct {
		said []*lanSaid
		want byte // b's
	}{
		"alone":                                 {[]*lanSaid{forwards(b, lan)}, 0},
		"another LAN":                           {[]*lanSaid{forwards(b, lan), forwards(a, other)}, 0},
		"neither hears the other":               {[]*lanSaid{forwards(b, lan), forwards(a, lan)}, a},
		"one hears the other":                   {[]*lanSaid{forwards(b, lan), forwards(a, lan, lanport.ID{b})}, a},
		"both do, and will agree":               {[]*lanSaid{forwards(b, lan, lanport.ID{a}), forwards(a, lan, lanport.ID{b})}, 0},
		"the other blocks":                      {[]*lanSaid{forwards(b, lan), blocks(forwards(a, lan))}, 0},
		"it blocks":                             {[]*lanSaid{blocks(forwards(b, lan)), forwards(a, lan)}, 0},
		"two others, of whom the lowest counts": {[]*lanSaid{forwards(x, lan), forwards(b, lan), forwards(a, lan)}, a},
	} {
		l := lans{said: map[keys.NodeID]*lanSaid{}}
		for _, s := range c.said {
			l.said[keys.NodeID(s.From)] = s
		}
		want := keys.NodeID{}
		if c.want != 0 {
			want = keys.NodeID{c.want}
		}
		if got := l.rival(l.said[keys.NodeID{b}]); got != want {
			t.Errorf("%s: %d, want %d", what, got[0], c.want)
		}
	}
}

// TestDoubtIsPutOff is about a member that cannot be asked yet, or was asked just now: it is another time.
func TestDoubtIsPutOff(t *testing.T) {
	now, lan, a, b := time.Unix(1e9, 0), lanport.Segment{1}, keys.NodeID{1}, keys.NodeID{2}
	forwards := func(id keys.NodeID) *lanSaid {
		return &lanSaid{Statement: lanport.Statement{From: lanport.ID(id), Segment: lan, State: lanport.Forwarding}}
	}
	n := &Node{self: b}
	n.state.lans.said = map[keys.NodeID]*lanSaid{a: forwards(a), b: forwards(b)}
	for what, members := range map[string]map[keys.NodeID]*member{
		"it has no remote yet":  {},
		"it was asked just now": {a: {doubted: now.Add(-time.Second)}},
	} {
		n.state.members = members
		n.doubtRivals(now)
		if !n.state.lans.doubtful || !n.state.lans.said[a].rival.IsZero() {
			t.Errorf("%s: put off %v, taken for asked by %v", what, n.state.lans.doubtful, n.state.lans.said[a].rival)
		}
	}
	delete(n.state.lans.said, b)
	if n.doubtRivals(now); n.state.lans.doubtful {
		t.Error("there is nobody left to ask, and it goes on")
	}
}

// TestStatementsAreSigned changes each byte of a statement, and who it is of.
func TestStatementsAreSigned(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	network := keys.NetworkID{7}
	s := lanport.Statement{From: lanport.ID{1}, Segment: lanport.Segment{2}, Counter: 3, State: lanport.Forwarding, Heard: []lanport.ID{{5}}}
	text := s.Append(nil)
	whole := append(text, ed25519.Sign(private, signedText(network, text))...)
	known := func(id lanport.ID) ed25519.PublicKey {
		if id == (lanport.ID{1}) {
			return public
		}
		return nil
	}
	if got, raw, ok := verifyStatement(append(whole, 0, 0), network, known); !ok || !got.Same(&s) || len(raw) != len(whole) {
		t.Fatalf("%+v, %d bytes, %v", got, len(raw), ok)
	}
	for at := range whole {
		whole[at] ^= 1
		if _, _, ok := verifyStatement(whole, network, known); ok {
			t.Errorf("byte %d was changed, and it counts", at)
		}
		whole[at] ^= 1
		if _, _, ok := verifyStatement(whole[:at], network, known); ok {
			t.Errorf("it counts with %d bytes", at)
		}
	}
	if _, _, ok := verifyStatement(whole, keys.NetworkID{8}, known); ok {
		t.Error("one of another network counts")
	}
	if _, _, ok := verifyStatement(whole, network, func(lanport.ID) ed25519.PublicKey { return nil }); ok {
		t.Error("one of a member that may not bridge counts")
	}
}
