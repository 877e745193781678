package punch

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"testing"

	"meshd/nat-traversal"
)

func cand(kind traversal.Kind, s string) traversal.Candidate {
	return traversal.Candidate{Kind: kind, Addr: netip.MustParseAddrPort(s)}
}

func sample() Message {
	return Message{
		Step: Answer, Many: true, Mapping: traversal.MappingEndpointIndependent, Number: 0x01020304,
		Candidates: []traversal.Candidate{
			cand(traversal.Host, "192.168.1.10:51830"), cand(traversal.Reflexive, "198.18.0.1:4096"),
			cand(traversal.Host, "[2001:db8::1]:51830"),
		},
	}
}

func TestExactBytes(t *testing.T) {
	want := "0201020301020304" + "0004ca76c0a8010a" + "01041000c6120001" + "0006ca7620010db8000000000000000000000001"
	if got := hex.EncodeToString(sample().Append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range []Message{sample(), {Step: Call}, {Step: Call, Mapping: traversal.MappingAddressAndPortDependent, Number: 1 << 31}} {
		got, err := Parse(m.Append([]byte("before"))[6:])
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v: %+v, %v", m, got, err)
		}
	}
}

// TestAppendLeavesOut: what the other side would refuse is not told.
func TestAppendLeavesOut(t *testing.T) {
	m := Message{Step: Call}
	for _, s := range []string{"127.0.0.1:1", "0.0.0.0:1", "224.0.0.1:1", "198.18.0.1:0", "[fe80::1]:1", "[::1]:1"} {
		m.Candidates = append(m.Candidates, cand(traversal.Host, s))
	}
	m.Candidates = append(m.Candidates, traversal.Candidate{})
	for i := range 40 {
		m.Candidates = append(m.Candidates, traversal.Candidate{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, 1}), uint16(i+1))})
	}
	got, err := Parse(m.Append(nil))
	if err != nil || len(got.Candidates) != MaxCandidates || got.Candidates[0].Addr.Addr() != netip.MustParseAddr("198.18.0.1") {
		t.Errorf("%+v, %v", got, err)
	}
	if n := len(m.Append(nil)); n > 1000 {
		t.Errorf("%d bytes", n)
	}
}

func TestParseRefuses(t *testing.T) {
	good := sample().Append(nil)
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "short": good[:7], "one candidate less": good[:len(good)-20], "cut": good[:len(good)-1],
		"more": append(bytes.Clone(good), 0), "step": change(0, 3), "flag": change(1, 2), "mapping": change(2, 5),
		"count": change(3, 17), "kind": change(8, 4), "family": change(9, 5), "loopback": change(12, 127),
		"multicast": change(12, 224), "port 0": change(18, 0),
	} {
		if name == "port 0" { // 4096 is 10 00
			b[19] = 0
		}
		if m, err := Parse(b); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample().Append(nil))
	f.Add(Message{Step: Call}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		for _, c := range m.Candidates {
			if !traversal.UsableEndpoint(c.Addr) {
				t.Fatalf("%v is not usable", c)
			}
		}
		if again := m.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x is read as %+v, which is %x", b, m, again)
		}
	})
}
