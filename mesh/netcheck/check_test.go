package netcheck

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"meshd/nat-traversal"
)

// server answers STUN on loopback, requests of this size at most.
func server(t *testing.T, most int) netip.AddrPort {
	t.Helper()
	s, err := open(t.Context(), false, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			from, b, ok := s.receive(ctx, time.Now().Add(time.Second))
			if !ok || len(b) > most {
				continue
			}
			if answer, ok := traversal.Answer(b, from); ok {
				s.send(from, answer)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done; s.Close() })
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.local().Port())
}

func TestMTU(t *testing.T) {
	for most, want := range map[int]int{9000: 1500, 1464: 1492, 1432: 1460, 1252: 1280, 1000: 0} {
		f := &family{source: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		if got := f.mtu(t.Context(), []answer{{server: server(t, most)}}); got != want {
			t.Errorf("a path of %d bytes: %d, want %d", most+28, got, want)
		}
	}
}

func TestHairpin(t *testing.T) {
	s, err := open(t.Context(), false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	own := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.local().Port())
	f := &family{}
	for _, test := range []struct {
		name string
		at   netip.AddrPort
		nat  traversal.Mapping
		want string
	}{
		{"comes back", own, traversal.MappingEndpointIndependent, "yes"},
		{"goes elsewhere", server(t, 9000), traversal.MappingEndpointIndependent, "no"},
		{"no NAT", own, traversal.MappingNone, "not-needed"},
		{"another mapping each time", own, traversal.MappingAddressAndPortDependent, "unknown"},
	} {
		result := traversal.Result{Reflexive: []netip.AddrPort{test.at}, Mapping: test.nat}
		if got := f.hairpin(t.Context(), s, result); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		port, host, gotPort, gotHost bool
		want                         traversal.Filtering
	}{
		{true, true, true, true, traversal.FilteringEndpointIndependent},
		{true, true, false, true, traversal.FilteringEndpointIndependent},
		{true, true, true, false, traversal.FilteringAddressDependent},
		{true, false, true, false, traversal.FilteringUnknown}, // nobody else has sent
		{true, true, false, false, traversal.FilteringAddressAndPortDependent},
		{true, false, false, false, traversal.FilteringAddressAndPortDependent},
		{false, true, false, false, traversal.FilteringUnknown},
	} {
		if got := judge(test.port, test.host, test.gotPort, test.gotHost); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// TestRunEndsWithItsContext: nobody answers, and the check is over when its time is.
func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	dead := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 9)
	r := Run(ctx, Config{Servers: []netip.AddrPort{dead}})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if r.UDP || r.Asked != 1 || len(r.Families) != 2 || r.Servers[0].Answered {
		t.Errorf("%+v", r)
	}
}
