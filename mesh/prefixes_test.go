package mesh_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"meshd/mesh/api"
)

// TestPrefixes: an admin adds prefixes and removes one; everybody has addresses in them, and the removed one goes when
// its time is over, without another word.
func TestPrefixes(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.up(w.host("198.18.0.1"), "home")
		a.waitReady(5 * time.Second)
		b := w.up(w.host("198.18.0.2"), "laptop", a.invite(1))
		b.waitReady(5 * time.Second)
		first := a.status().Network.Prefixes[0]
		one, two := netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("2001:db8:2::/64")
		change := func(n *node, c api.PrefixChange) error {
			_, err := n.ask().Prefixes(t.Context(), c)
			return err
		}
		for _, bad := range []struct {
			name string
			at   *node
			c    api.PrefixChange
			code api.Code
		}{
			{"no admin", b, api.PrefixChange{Add: []netip.Prefix{one}}, api.CodeDenied},
			{"not there", a, api.PrefixChange{Remove: []netip.Prefix{one}}, api.CodeUsage},
			{"the last", a, api.PrefixChange{Remove: []netip.Prefix{first}}, api.CodeUsage},
		} {
			if err := change(bad.at, bad.c); api.CodeOf(err) != bad.code {
				t.Errorf("%s: %v", bad.name, err)
			}
		}
		if err := change(a, api.PrefixChange{Add: []netip.Prefix{one, two}, Lifetime: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if err := change(a, api.PrefixChange{Remove: []netip.Prefix{one}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		for _, n := range []*node{a, b} {
			list, err := n.ask().Prefixes(t.Context(), api.PrefixChange{})
			if err != nil || len(list) != 3 || list[1].State != api.PrefixDeprecated || list[1].PreferredSeconds != 0 || list[1].ValidSeconds > 60 || list[2].ValidSeconds != 60 {
				t.Errorf("%s: %+v, %v", n.name, list, err)
			}
			if got := n.status().Self.Addresses; len(got) != 3 || !one.Contains(got[1]) {
				t.Errorf("%s has %v", n.name, got)
			}
		}
		time.Sleep(70 * time.Second)
		for _, n := range []*node{a, b} {
			if got := n.status().Network.Prefixes; !slices.Equal(got, []netip.Prefix{first, two}) {
				t.Errorf("%s: left are %v", n.name, got)
			}
			if got := n.status().Self.Addresses; len(got) != 2 || !two.Contains(got[1]) {
				t.Errorf("%s has %v", n.name, got)
			}
		}
	})
}
