package stations

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/record"
)

func ips(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

var host = l2.Binding{VLAN: 7, MAC: l2.MAC{2, 0, 0, 0, 0, 1}, Seq: 3, IPs: ips("10.0.0.7", "fd00::7")}

func TestMessages(t *testing.T) {
	segment := host
	segment.Segment, segment.Router, segment.IPs = l2.Segment{1, 2, 3, 4, 5, 6, 7, 8}, true, nil
	for name, test := range map[string]struct {
		message Message
		want    string
	}{
		"here": {
			Message{Notice: l2.Notice{Step: l2.StepHere, Stamp: 0x1_0000_0002, Bindings: []l2.Binding{host}}},
			"01" + "0000000100000002" + "02" + "0007" + "020000000001" + "00000003" + "040a000007" + "06fd000000000000000000000000000007",
		},
		"gone to another": {
			Message{To: keys.NodeID{0xaa}, Notice: l2.Notice{Step: l2.StepGone, Stamp: 1, Bindings: []l2.Binding{{MAC: host.MAC}}}},
			"02" + "0000000000000001" + "aa000000000000000000000000000000" + "00" + "0000" + "020000000001" + "00000000",
		},
		"claim of two": {
			Message{Notice: l2.Notice{Step: l2.StepClaim, Stamp: 2, Bindings: []l2.Binding{segment, {MAC: host.MAC, Seq: 1}}}},
			"03" + "0000000000000002" + "30" + "0007" + "020000000001" + "00000003" + "0102030405060708" + "00" + "0000" + "020000000001" + "00000001",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := Append(nil, test.message)
			if got := hex.EncodeToString(b); got != test.want {
				t.Fatalf("got\n%s, want\n%s", got, test.want)
			}
			m, err := Parse(b)
			if err != nil || fmt.Sprint(m) != fmt.Sprint(test.message) {
				t.Errorf("%+v, %v", m, err)
			}
			for n := range len(b) {
				if m, err := Parse(b[:n]); err == nil && name != "claim of two" {
					t.Errorf("the first %d bytes are %+v", n, m)
				}
			}
		})
	}
}

func TestLargestMessageFits(t *testing.T) {
	full := host
	full.Segment, full.IPs = l2.Segment{1}, nil
	for i := range l2.MaxBindingIPs {
		full.IPs = append(full.IPs, netip.MustParseAddr(fmt.Sprintf("fd00::%x", i+1)))
	}
	m := Message{Notice: l2.Notice{Step: l2.StepGone, Bindings: slices.Repeat([]l2.Binding{full}, l2.MaxInNotice)}}
	if n := len(Append(nil, m)); n > MaxMessage {
		t.Errorf("%d bytes", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Append(nil, Message{Notice: l2.Notice{Step: l2.StepHere, Stamp: 1, Bindings: []l2.Binding{host}}}))
	f.Add(Append(nil, Message{To: keys.NodeID{1}, Notice: l2.Notice{Step: l2.StepGone, Bindings: []l2.Binding{{MAC: host.MAC}}}}))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0x3f})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		if again := Append(nil, m); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

// station makes one with so many addresses.
func station(n, addresses int) record.Station {
	s := record.Station{MAC: [6]byte{2, 0, 0, 0, byte(n >> 8), byte(n)}}
	for i := range addresses {
		s.IPs = append(s.IPs, netip.MustParseAddr(fmt.Sprintf("fd00::%x:%x", n, i+1)))
	}
	return s
}

// Every page can be signed, and all that belongs on them is.
func TestPagesHoldWhatAMemberMayBring(t *testing.T) {
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ stations, addresses, limit, want int }{
		"a member with all addresses": {32, record.MaxIPs, 8, record.MaxIPs},
		"a bridge with three each":    {1024, 3, record.MaxPages, 3},
		"a bridge with all addresses": {1024, record.MaxIPs, record.MaxPages, fewIPs},
		"none":                        {0, 0, 8, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var list []record.Station
			for n := range test.stations {
				list = append(list, station(n, test.addresses))
			}
			count := 0
			for _, p := range Divide(nil, list, test.limit) {
				if _, err := record.SignStations(id, keys.NetworkID{}, record.Version{}, p); err != nil {
					t.Fatal(err)
				}
				count += len(p.Stations)
				for _, s := range p.Stations {
					if len(s.IPs) != test.want {
						t.Fatalf("%d addresses", len(s.IPs))
					}
				}
			}
			if count != test.stations {
				t.Errorf("%d stations", count)
			}
		})
	}
}

// One change changes one page.
func TestOneChangeIsOnePage(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	have := map[int]int{}
	for n := range 300 {
		have[n] = 2
	}
	sorted := func() (list []record.Station) {
		for n, addresses := range have {
			list = append(list, station(n, addresses))
		}
		slices.SortFunc(list, record.CompareStation)
		return list
	}
	pages := Divide(nil, sorted(), record.MaxPages)
	for range 500 {
		n := rng.IntN(400)
		if _, known := have[n]; known {
			delete(have, n)
		} else {
			have[n] = 2
		}
		next := Divide(pages, sorted(), record.MaxPages)
		changed := 0
		for i, p := range next {
			if i >= len(pages) || !p.Equal(pages[i]) {
				changed++
			}
		}
		if changed != 1 {
			t.Fatalf("%d pages changed", changed)
		}
		pages = next
	}
	have = nil
	for _, p := range Divide(pages, nil, record.MaxPages) {
		if len(p.Stations) != 0 {
			t.Fatalf("%d stations are left", len(p.Stations))
		}
	}
}
