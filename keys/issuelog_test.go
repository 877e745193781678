package keys

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestRedeem(t *testing.T) {
	p := newParty(t)
	store := &memoryLog{}
	log := must(OpenIssueLog(store))(t)
	a, b, c := must(NewIdentity())(t).Public(), must(NewIdentity())(t).Public(), must(NewIdentity())(t).Public()
	invite := p.invite(t, func(o *InviteOptions) { o.Uses, o.Roles = 2, Roles{RoleRouter} })
	if err := log.Redeem(invite.ID, a, p.now); !errors.Is(err, ErrUnknown) {
		t.Errorf("before it is recorded: %v", err)
	}
	for range 2 { // recording twice changes nothing
		if err := log.RecordInvite(invite); err != nil {
			t.Fatal(err)
		}
	}
	late := invite.Expires
	for _, step := range []struct {
		name string
		do   func() error
		want error
	}{
		{"first", func() error { return log.Redeem(invite.ID, a, p.now) }, nil},
		{"first again", func() error { return log.Redeem(invite.ID, a, p.now) }, nil},
		{"too late", func() error { return log.Redeem(invite.ID, b, late) }, ErrExpired},
		{"second", func() error { return log.Redeem(invite.ID, b, late.Add(-time.Second)) }, nil},
		{"third", func() error { return log.Redeem(invite.ID, c, p.now) }, ErrUsed},
		{"first again, late", func() error { return log.Redeem(invite.ID, a, late.Add(time.Hour)) }, nil},
		{"another invite", func() error { return log.Redeem(InviteID{1}, a, p.now) }, ErrUnknown},
		{"revoke another", func() error { return log.RevokeInvite(InviteID{1}) }, ErrUnknown},
	} {
		entries := len(store.entries)
		if err := step.do(); !errors.Is(err, step.want) {
			t.Fatalf("%s: %v", step.name, err)
		}
		if step.want != nil && len(store.entries) != entries {
			t.Errorf("%s: written though refused", step.name)
		}
		log = must(OpenIssueLog(store))(t) // each step survives a restart
	}
	record, ok := log.Invite(invite.ID)
	if !ok || len(record.Redeemed) != 2 || record.Redeemed[0].Node != a.Sign || record.Uses != 2 ||
		!record.Expires.Equal(invite.Expires) || record.Roles.String() != "member router" || record.Revoked {
		t.Fatalf("got %+v", record)
	}
	for range 2 {
		if err := log.RevokeInvite(invite.ID); err != nil {
			t.Fatal(err)
		}
	}
	log = must(OpenIssueLog(store))(t)
	if err := log.Redeem(invite.ID, a, p.now); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	if list := log.Invites(); len(list) != 1 || !list[0].Revoked {
		t.Errorf("got %+v", list)
	}
	for _, entry := range store.entries {
		if seed := invite.secret().seed; bytes.Contains(entry, seed[:8]) {
			t.Error("the secret is in the log")
		}
	}
}

func TestIssues(t *testing.T) {
	store := &memoryLog{}
	log := must(OpenIssueLog(store))(t)
	a, b := must(NewIdentity())(t).Public(), must(NewIdentity())(t).Public()
	at := time.Unix(1_800_000_000, 0).UTC()
	for _, i := range []Issue{
		{Public: a, Name: "a", Invite: InviteID{1}, Ref: [16]byte{2}, Chain: []byte{3}, At: at},
		{Public: b, Name: "b", Chain: []byte{4}, At: at},
		{Public: a, Name: "a2", Chain: []byte{5}, At: at.Add(time.Hour)},
	} {
		if err := log.RecordIssue(i); err != nil {
			t.Fatal(err)
		}
	}
	log = must(OpenIssueLog(store))(t)
	issues := log.Issues()
	if len(issues) != 3 || issues[0].Public != a || issues[0].Invite != (InviteID{1}) || issues[0].Ref != [16]byte{2} || !issues[0].At.Equal(at) {
		t.Fatalf("got %+v", issues)
	}
	if i, ok := log.IssuedTo(a.Sign); !ok || i.Name != "a2" || i.Chain[0] != 5 {
		t.Errorf("got %+v", i)
	}
	if _, ok := log.IssuedTo([32]byte{}); ok {
		t.Error("nobody has a certificate")
	}
}

// TestRedeemRace lets 50 nodes race for one invite, many times.
func TestRedeemRace(t *testing.T) {
	p := newParty(t)
	nodes := make([]Public, 50)
	for i := range nodes {
		nodes[i].Sign[0] = byte(i + 1)
	}
	for round := range 100 {
		uses := 1 + round%4
		store := &memoryLog{}
		log := must(OpenIssueLog(store))(t)
		invite := p.invite(t, func(o *InviteOptions) { o.Uses = uses })
		if err := log.RecordInvite(invite); err != nil {
			t.Fatal(err)
		}
		var won atomic.Int32
		var wg sync.WaitGroup
		for _, node := range nodes {
			wg.Go(func() {
				switch err := log.Redeem(invite.ID, node, p.now); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, ErrUsed):
					t.Errorf("loser: %v", err)
				}
			})
		}
		wg.Wait()
		if int(won.Load()) != uses || len(store.entries) != uses+1 {
			t.Fatalf("%d won of %d, %d entries", won.Load(), uses, len(store.entries))
		}
	}
}

// TestRedeemAtEveryCrashPoint kills or unplugs the signer at each change of its
// disk, while nodes redeem a single-use invite: at most one node ever hears yes,
// and it hears yes again afterwards.
func TestRedeemAtEveryCrashPoint(t *testing.T) {
	p := newParty(t)
	invite := p.invite(t, nil)
	nodes := []Public{{Sign: [32]byte{1}}, {Sign: [32]byte{2}}, {Sign: [32]byte{3}}}
	for seed := range uint64(150) {
		for crashAt := range 8 {
			r := rand.New(rand.NewPCG(seed, uint64(crashAt)))
			d := newMemDisk()
			log := must(OpenIssueLog(must(openOn(d))(t)))(t)
			if err := log.RecordInvite(invite); err != nil {
				t.Fatal(err)
			}
			var winner *Public
			for life := range 4 {
				if d.crashAt, d.ops = -1, 0; life < 3 {
					d.crashAt = crashAt
				}
				s, err := openOn(d)
				if err == nil {
					log, err = OpenIssueLog(s)
				}
				if err == nil {
					winner = redeemAll(t, log, invite, nodes, winner, r, p.now)
				} else if !errors.Is(err, errCrashed) {
					t.Fatal(err)
				}
				if crashAt = r.IntN(8); r.IntN(4) == 0 {
					d = d.kill()
				} else {
					d = d.reboot(r)
				}
			}
			if winner == nil {
				t.Fatal("nobody could redeem on a disk that works")
			}
		}
	}
}

// redeemAll lets each node try, in any order, and holds them to one winner.
func redeemAll(t *testing.T, log *IssueLog, invite *Invite, nodes []Public, winner *Public, r *rand.Rand, now time.Time) *Public {
	t.Helper()
	for _, i := range r.Perm(len(nodes)) {
		err := log.Redeem(invite.ID, nodes[i], now)
		switch {
		case err == nil && winner != nil && *winner != nodes[i]:
			t.Fatal("two nodes have redeemed a single-use invite")
		case err == nil:
			winner = &nodes[i]
		case errors.Is(err, ErrUsed) && winner != nil && *winner == nodes[i]:
			t.Fatal("the winner is refused")
		}
	}
	return winner
}

// TestRedeemWithFailingDisk has each write and sync fail in turn: who was told
// no may be told yes later, but two are never told yes.
func TestRedeemWithFailingDisk(t *testing.T) {
	p := newParty(t)
	invite := p.invite(t, nil)
	nodes := []Public{{Sign: [32]byte{1}}, {Sign: [32]byte{2}}, {Sign: [32]byte{3}}}
	for mask := range 1 << 10 {
		d := newMemDisk()
		s := must(openOn(d))(t)
		log := must(OpenIssueLog(s))(t)
		if err := log.RecordInvite(invite); err != nil {
			t.Fatal(err)
		}
		n := 0
		d.fault = func() error {
			n++
			if n <= 10 && mask&(1<<(n-1)) != 0 {
				return errNoSpace
			}
			return nil
		}
		r := rand.New(rand.NewPCG(uint64(mask), 0))
		winner := redeemAll(t, log, invite, nodes, nil, r, p.now)
		d.fault = nil
		log = must(OpenIssueLog(must(openOn(d.reboot(r)))(t)))(t)
		if redeemAll(t, log, invite, nodes, winner, r, p.now) == nil {
			t.Fatal("nobody can redeem after the restart")
		}
	}
}

func TestOpenIssueLogRefuses(t *testing.T) {
	for name, entry := range map[string][]byte{
		"empty": {}, "unknown kind": {99}, "no body": {entryInvite}, "garbage": {entryRedeem, 0xff},
		"redemption of an unknown invite": append([]byte{entryRedeem, 0x83, 0x50}, append(make([]byte, 16), append([]byte{0x58, 32}, append(make([]byte, 32), 0)...)...)...),
	} {
		if _, err := OpenIssueLog(&memoryLog{entries: [][]byte{entry}}); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func FuzzIssueLog(f *testing.F) {
	p, chain := fixedParty(f)
	store := &memoryLog{}
	log := must(OpenIssueLog(store))(f)
	invite := p.invite(f, nil)
	node := p.admin.Public()
	if err := errors.Join(log.RecordInvite(invite), log.Redeem(invite.ID, node, p.now), log.RevokeInvite(invite.ID),
		log.RecordIssue(Issue{Public: node, Name: "a", Chain: chain, At: p.now})); err != nil {
		f.Fatal(err)
	}
	for _, entry := range store.entries {
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		if log, err := OpenIssueLog(&memoryLog{entries: [][]byte{entry}}); err == nil && len(log.Invites())+len(log.Issues()) != 1 {
			t.Fatal("an entry that says nothing")
		}
	})
}
