package mesh_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/l2test"
	"meshd/mesh/api"
	"meshd/peer"
)

// TestVLANRole has the role vlan= on whole nodes: a tag passes between two members whose roles both allow it and comes to
// nobody else; a change of roles counts at once; and a member that sends what it may not is refused by who receives it.
func TestVLANRole(t *testing.T) {
	inWorld(t, 20, func(t *testing.T, w *world) {
		home := w.up(w.host("198.18.0.1"), "home")
		home.waitReady(5 * time.Second)
		nodes := []*node{home}
		roles := map[string]string{"home": "", "some": "vlan=42,100-199", "none": "vlan=none", "all": ""}
		for i, name := range []string{"some", "none", "all"} {
			opts := api.InviteOptions{Uses: 1, Expires: time.Hour}
			if role := roles[name]; role != "" {
				opts.Roles = []string{role}
			}
			invite, err := home.ask().Invite(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			n := w.up(w.host(fmt.Sprintf("198.18.0.%d", i+2)), name, invite)
			n.waitReady(10 * time.Second)
			nodes = append(nodes, n)
		}
		for _, n := range nodes {
			n.wait(api.WaitSpec{Peers: 3}, 10*time.Second)
		}
		tags(t, nodes, roles)

		roles["some"] = "vlan=7"
		if _, err := home.ask().SetRoles(t.Context(), "some", []string{roles["some"]}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		tags(t, nodes, roles)

		// Now it holds to nothing.
		evil := w.turn(nodes[1])
		r := evil.befriend("198.18.0.1:51830", peer.Member)
		mac := l2.MAC(keys.MAC(evil.identity.Public().ID()))
		drain(home)
		for i, tag := range []uint16{42, 7} {
			for _, dst := range []l2.MAC{home.mac(), broadcast} {
				r.Send(l2test.Tagged(l2test.Frame(dst, mac, uint32(i), 100), 0x8100, tag), 0)
			}
		}
		r.Flush()
		for range 2 { // to home, and to all
			if f := home.take(time.Second); tagOf(f) != 7 {
				t.Errorf("of a member that may use tag 7 came %x", f)
			}
		}
		if f := home.take(time.Second); f != nil {
			t.Errorf("and then %x", f)
		}
	})
}

// tags sends frames with all kinds of tags from each node to each other, and to all.
func tags(t *testing.T, nodes []*node, roles map[string]string) {
	t.Helper()
	allows := func(name string, tag uint16) bool {
		list, err := keys.ParseRoles(roles[name])
		return err == nil && list.AllowsVLAN(tag)
	}
	const last = 0xffff_ffff
	for _, from := range nodes {
		for _, to := range nodes {
			if to == from {
				continue
			}
			for _, dst := range []l2.MAC{to.mac(), broadcast} {
				drain(to)
				var want []uint16
				for _, tag := range []uint16{1, 7, 42, 150, 4094} {
					from.host.segment().Inject(l2test.Tagged(l2test.Frame(dst, from.mac(), uint32(tag), 100), 0x8100, tag))
					if allows(from.name, tag) && allows(to.name, tag) {
						want = append(want, tag)
					}
				}
				from.host.segment().Inject(l2test.Tagged(l2test.Frame(dst, from.mac(), 0, 100), 0x8100, 0xa000)) // a priority alone
				from.send(dst, last)
				want = append(want, 0)
				var got []uint16
				for f := to.take(5 * time.Second); len(f) >= 18 && f[12] == 0x81; f = to.take(5 * time.Second) {
					got = append(got, tagOf(f))
				}
				if !slices.Equal(got, want) {
					t.Errorf("from %s (%s) to %s (%s), to %v: tags %v came, want %v", from.name, roles[from.name], to.name, roles[to.name], dst, got, want)
				}
			}
		}
	}
}

// drain takes what has come to a node for others' sake.
func drain(n *node) {
	for n.take(time.Millisecond) != nil {
	}
}

// tagOf is the VLAN of a tagged frame.
func tagOf(f []byte) uint16 {
	if len(f) < 16 || f[12] != 0x81 {
		return 0xffff
	}
	return (uint16(f[14])<<8 | uint16(f[15])) & 0xfff
}
