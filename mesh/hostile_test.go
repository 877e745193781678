package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"meshd/keys"
	"meshd/l2"
	"meshd/mesh/record"
	"meshd/nat-traversal"
	"meshd/peer"
	"meshd/peer/hello"
	"meshd/peer/udp"
	"meshd/peer/udp/udptest"
)

// bare is a Host without anything behind it.
type bare struct{ machine *udptest.Host }

func (b bare) Listen(at netip.AddrPort) ([]udp.Conn, error) {
	c, err := b.machine.Listen(51830)
	return []udp.Conn{c}, err
}
func (bare) OpenSegment(l2.TAPConfig) (l2.Device, error)           { return nil, nil }
func (bare) Watch(context.Context) <-chan struct{}                 { return nil }
func (bare) Resolve(context.Context, string) ([]netip.Addr, error) { return nil, nil }
func (bare) Candidates(uint16, string, []netip.Prefix) ([]traversal.Candidate, error) {
	return nil, nil
}

// FuzzControl hands control messages of a member and of a joiner to a founder's
// node, behind the sessions. Whatever they say, the members stay who they are.
func FuzzControl(f *testing.F) {
	for kind := range byte(8) {
		f.Add([]byte{kind}, true)
		f.Add([]byte{kind, 0}, false)
		f.Add([]byte{kind, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, true)
		f.Add([]byte{kind, 2, 0x81, 0x40}, true)
	}
	n := founder(f)
	member, joiner := n.admit(f, peer.Member), n.admit(f, peer.Pending)
	f.Fuzz(func(t *testing.T, msg []byte, asMember bool) {
		from := joiner
		if asMember {
			from = member
		}
		n.Control(from, msg)
		for {
			select {
			case task := <-n.tasks:
				task()
				continue
			default:
			}
			break
		}
		n.reconcile(time.Now())
		if len(n.state.members) != 1 || len(n.state.dir.Members()) != 2 || len(n.state.pending) > 1 {
			t.Fatalf("%d members, %d in the directory, %d pending", len(n.state.members), len(n.state.dir.Members()), len(n.state.pending))
		}
	})
}

// founder is a node that is not running.
func founder(t testing.TB) *Node {
	t.Helper()
	host := bare{udptest.NewInternet(1).Host(netip.MustParseAddr("198.18.0.1"))}
	n, err := prepare(Config{StateDir: filepath.Join(t.TempDir(), "home"), Name: "home", NoTAP: true, Host: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.engine.Run(ended()); _ = n.closeState() })
	return n
}

// admit adds a remote to the node.
func (n *Node) admit(t testing.TB, class peer.Class) *peer.Remote {
	t.Helper()
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if class != peer.Member {
		r, err := n.engine.SetRemote(peer.Spec{Public: id.Public(), Class: class})
		if err != nil {
			t.Fatal(err)
		}
		n.state.pending[id.ID()] = &pendingJoiner{remote: r, until: time.Now().Add(time.Hour)}
		return r
	}
	chain, err := n.state.signer.Issue(id.Public(), "evil", keys.Roles{"member"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := record.FromCertificate(chain)
	if err != nil {
		t.Fatal(err)
	}
	n.merge(nil, [][]byte{raw})
	n.reconcile(time.Now())
	return n.state.members[id.ID()].remote
}

// Whoever floods the control goroutine finds no more room than it has a right
// to; others still do.
func TestInboxIsShared(t *testing.T) {
	n := founder(t)
	loud, quiet := n.admit(t, peer.Member), n.admit(t, peer.Member)
	for range 5000 {
		n.Control(loud, []byte{kindRecords, 1})
	}
	if got := len(n.tasks); got != maxFromMember {
		t.Fatalf("%d messages of one member wait", got)
	}
	for range 100 {
		joiner, err := keys.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		r, err := n.engine.SetRemote(peer.Spec{Public: joiner.Public(), Class: peer.Pending})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			n.Control(r, []byte{kindJoin, 0})
		}
	}
	if got := len(n.tasks); got != maxFromMember+maxFromJoiners {
		t.Fatalf("%d messages of a member and joiners wait", got)
	}
	servers := []netip.AddrPort{netip.MustParseAddrPort("198.18.0.9:3478")}
	n.asked.Store(&servers)
	for range 5000 {
		n.STUN(servers[0], []byte("no answer"))
	}
	before := len(n.tasks)
	n.Control(quiet, []byte{kindRecords, 1})
	if got := len(n.tasks); got != before+1 || before > maxFromMember+maxFromJoiners+maxFromStranger {
		t.Fatalf("%d tasks, then %d", before, got)
	}
	for len(n.tasks) > 0 {
		(<-n.tasks)()
	}
	if n.inbox.joiners != 0 || n.inbox.strangers.Load() != 0 || n.inbox.senders[loud.ID].waiting != 0 {
		t.Fatal("places were not given back")
	}
}

// A caller who has given up shares nothing with the task that it left behind.
func TestDoGivenUp(t *testing.T) {
	n := founder(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran := false
	for range 100 {
		if err := n.do(ctx, func() { ran = true }); err == nil {
			t.Fatal("nobody ran it")
		}
	}
	for len(n.tasks) > 0 {
		(<-n.tasks)()
	}
	if ran {
		t.Error("it ran after its caller had gone")
	}
}

// Keys that a member holds are not signed for anybody else, nor those of who is out.
func TestMayNotJoin(t *testing.T) {
	n := founder(t)
	member := n.admit(t, peer.Member)
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	thief := id.Public()
	if n.mayNotJoin(thief) || n.mayNotJoin(member.Public) {
		t.Error("somebody honest may not join")
	}
	thief.WireGuard = member.Public.WireGuard
	if !n.mayNotJoin(thief) {
		t.Error("a thief of a WireGuard key may join")
	}
	thief = id.Public()
	thief.Probe = n.identity.Public().Probe
	if !n.mayNotJoin(thief) {
		t.Error("a thief of our probe key may join")
	}
}

// TestMetAlthoughBusy has a node meet members while its control goroutine has more to do than it has
// room for: they know that they have met, and do not say so again.
func TestMetAlthoughBusy(t *testing.T) {
	n := founder(t)
	for n.post(func() {}) {
	}
	const members = 3 * maxFromStranger
	for i := range members {
		id, err := keys.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		chain, err := n.state.signer.Issue(id.Public(), fmt.Sprintf("member-%d", i), keys.Roles{"member"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := n.state.membership.trust().Verify(chain, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n.Met(&hello.Result{Remote: id.Public(), Certificate: certificate}, netip.MustParseAddrPort("198.18.0.2:51830"))
	}
	n.reconcile(time.Now())
	if got := len(n.state.members); got != members {
		t.Errorf("%d of %d that were met are members here", got, members)
	}
}
