package directory

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"meshd/keys"
	"meshd/mesh/record"
)

// describe is all that a directory says, as text.
func describe(d *Directory) string {
	var b bytes.Buffer
	for _, m := range d.Members() {
		fmt.Fprintf(&b, "%s %s %s %v %v\n", m.Display, m.ID, m.Certificate.Serial, m.NodeVersion, m.Node)
	}
	name, prefixes, mtu := d.Network()
	fmt.Fprintf(&b, "%s %v %d %d revocations\n", name, prefixes, mtu, len(d.Revocations()))
	for _, raw := range d.Snapshot() {
		h := record.HashOf(raw)
		fmt.Fprintf(&b, "%x\n", h[:6])
	}
	return b.String()
}

// history is records of every kind, with renewals, equal names, equivocation, revocations that cascade and contradict.
func history(t testing.TB) (*authority, [][]byte) {
	t.Helper()
	a := newAuthority(t)
	now := testNow()
	var raws [][]byte
	add := func(raw []byte) { raws = append(raws, raw) }
	add(a.issue(a.signer, a.admin, "founder", keys.AllRoles(), now))
	network := func(id *keys.Identity, v record.Version, name string) {
		raw, err := record.SignNetwork(id, a.net, v, record.Network{Name: name, Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}, MTU: 1500})
		check(t, err)
		add(raw)
	}
	revoke := func(s *keys.Signer, r keys.Revocation) {
		v, err := s.Revoke(a.net, r)
		check(t, err)
		raw, err := record.FromRevocation(v.Raw)
		check(t, err)
		add(raw)
	}
	network(a.admin, record.Version{Epoch: 1, Counter: 1}, "home")

	thief, thiefSigner := a.newSigner()
	add(a.issue(a.signer, thief, "thief", keys.AllRoles(), now))
	network(thief, record.Version{Epoch: 9, Counter: 9}, "mine now")

	var ids []*keys.Identity
	for i := range 8 {
		id, cert := a.member(fmt.Sprintf("m%d", i/2)) // every name twice
		ids = append(ids, id)
		add(cert)
		for c := range 3 {
			add(a.node(id, record.Version{Epoch: 1, Counter: uint32(c)}, fmt.Sprintf("192.0.2.%d:%d", i+1, c+1)))
		}
	}
	add(a.node(ids[3], record.Version{Epoch: 1, Counter: 2}, "192.0.2.200:1")) // equivocation
	add(a.node(ids[4], record.Version{Epoch: 2, Counter: 0}, "[2001:db8::7]:1"))
	add(a.issue(a.signer, ids[0], "renewed", keys.Roles{keys.RoleMember}, now.Add(time.Hour)))
	add(a.issue(thiefSigner, ids[1], "stolen", keys.Roles{keys.RoleMember}, now.Add(2*time.Hour)))
	revoke(a.signer, keys.Revocation{Key: ids[2].Public().Sign, Issued: now})
	revoke(thiefSigner, keys.Revocation{Key: a.admin.Public().Sign, Issued: now.Add(3 * time.Hour)})
	revoke(thiefSigner, keys.Revocation{Key: ids[5].Public().Sign, Issued: now.Add(time.Minute)})
	revoke(a.signer, keys.Revocation{Key: thief.Public().Sign, Cascade: time.Unix(0, 0), Issued: now.Add(2 * time.Hour)})
	return a, raws
}

// Merge is commutative, associative and idempotent.
func TestOrderDoesNotMatter(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and long under the race detector; the same without it runs too")
	}
	a, raws := history(t)
	now := testNow().Add(4 * time.Hour)
	reference := New(a.trust, keys.NodeID{1})
	reference.Merge(raws, now)
	want := describe(reference)
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		order := slices.Clone(raws)
		for range r.IntN(10) {
			order = append(order, raws[r.IntN(len(raws))]) // some twice
		}
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		d := New(a.trust, keys.NodeID{1})
		var passed [][]byte
		for rest := order; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			delta, _ := d.Merge(rest[:n], now)
			passed = append(passed, delta...)
			rest = rest[n:]
		}
		if got := describe(d); got != want {
			t.Fatalf("seed %d:\n%s\nwant\n%s", seed, got, want)
		}
		other := New(a.trust, keys.NodeID{1}) // who hears only what was passed on knows the same
		other.Merge(passed, now)
		if got := describe(other); got != want {
			t.Fatalf("seed %d, second hand:\n%s\nwant\n%s", seed, got, want)
		}
		if delta, res := d.Merge(order, now); len(delta) > 0 || len(res.Changed) > 0 || res.Network {
			t.Fatalf("seed %d: merging again changes %v", seed, res)
		}
	}
}

func TestHistoryMeans(t *testing.T) {
	a, raws := history(t)
	d := New(a.trust, keys.NodeID{1})
	_, res := d.Merge(raws, testNow().Add(4*time.Hour))
	var names []string
	for _, m := range d.Members() {
		names = append(names, m.Certificate.Name)
	}
	// m1 once is revoked; the renewal counts; what the thief signed does not, nor whom it revoked.
	if want := []string{"founder", "m0", "m1", "m2", "m2", "m3", "m3", "renewed"}; !slices.Equal(sorted(names), want) {
		t.Errorf("members %v, want %v", sorted(names), want)
	}
	if name, prefixes, _ := d.Network(); name != "home" || len(prefixes) != 1 {
		t.Errorf("network %q %v", name, prefixes)
	}
	if len(res.Alarms) != 1 || res.Alarms[0].Kind != Equivocation {
		t.Errorf("alarms %v", res.Alarms)
	}
	for _, m := range d.Members() {
		if m.NodeVersion.Epoch == 2 && len(m.Node.Endpoints) > 0 {
			t.Errorf("an endpoint inside the mesh's prefix: %v", m.Node.Endpoints)
		}
		unique := m.Certificate.Name != "m2" && m.Certificate.Name != "m3"
		if unique != (m.Display == m.Certificate.Name) {
			t.Errorf("%s is shown as %s", m.Certificate.Name, m.Display)
		}
		if d.ByName(m.Display) != m {
			t.Errorf("ByName(%q) is another", m.Display)
		}
		if got, err := d.Find(m.ID.String()[:8]); got != m || err != nil {
			t.Errorf("Find by id: %v", err)
		}
	}
	if _, err := d.Find("m2"); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("Find of a name that two have: %v", err)
	}
	if _, err := d.Find("nobody"); !errors.Is(err, ErrUnknown) {
		t.Errorf("Find of nobody: %v", err)
	}
	if m := d.ByName("m2"); m != nil {
		t.Error("a name that two have resolves")
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

func TestForgedRecordsAreNeverAccepted(t *testing.T) {
	a, raws := history(t)
	now := testNow().Add(4 * time.Hour)
	d := New(a.trust, keys.NodeID{1})
	d.Merge(raws, now)
	want := describe(d)
	r := rand.New(rand.NewPCG(3, 3))
	var forged [][]byte
	for _, raw := range raws {
		for range 40 {
			bad := bytes.Clone(raw)
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
			forged = append(forged, bad, raw[:r.IntN(len(raw))], append(bytes.Clone(raw), 0))
		}
	}
	stranger := newAuthority(t) // well signed, in another network
	_, cert := stranger.member("m0")
	forged = append(forged, cert)
	id, _ := keys.NewIdentity() // in ours, without certificate
	forged = append(forged, a.node(id, record.Version{Epoch: 1}, "192.0.2.1:1"))
	delta, res := d.Merge(forged, now)
	if len(delta) > 0 || len(res.Changed) > 0 || describe(d) != want {
		t.Fatalf("accepted %d forgeries: %v", len(delta), res)
	}
	if res.Rejected[RejectParked] == 0 || res.Rejected[RejectMalformed] == 0 || res.Rejected[RejectSignature] == 0 {
		t.Errorf("rejected %v", res.Rejected)
	}
}

// A record of one member with another's name on it, and one of another type, carry good signatures over something else.
func TestRecordForAnotherOwnerOrNetwork(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	id, cert := a.member("one")
	d := a.directory(cert)
	raw, err := record.SignNode(id, b.net, record.Version{Epoch: 1}, record.Node{})
	check(t, err)
	if _, res := d.Merge([][]byte{raw}, testNow()); res.Rejected[RejectSignature] != 1 {
		t.Errorf("a record for another network: %v", res.Rejected)
	}
	if _, res := d.Merge([][]byte{raw}, testNow()); res.Rejected[RejectSignature] != 1 {
		t.Errorf("the same again: %v", res.Rejected)
	}
}

func TestParkedUntilCertificateComes(t *testing.T) {
	a := newAuthority(t)
	id, cert := a.member("late")
	d := a.directory()
	node := a.node(id, record.Version{Epoch: 1}, "192.0.2.1:1")
	if _, res := d.Merge([][]byte{node}, testNow()); res.Rejected[RejectParked] != 1 {
		t.Fatalf("%v", res.Rejected)
	}
	delta, res := d.Merge([][]byte{cert}, testNow())
	if len(delta) != 2 || len(res.Changed) != 1 || d.Member(id.ID()).Node == nil {
		t.Errorf("delta %d, %v", len(delta), res)
	}
	for i := range maxParked + 50 {
		stranger, err := keys.NewIdentity()
		check(t, err)
		d.Merge([][]byte{a.node(stranger, record.Version{Epoch: uint32(i)}, "192.0.2.1:1")}, testNow())
	}
	if len(d.parked) != maxParked {
		t.Errorf("%d are parked", len(d.parked))
	}
}

func TestRevocationRemoves(t *testing.T) {
	a := newAuthority(t)
	id, cert := a.member("stolen")
	d := New(a.trust, id.ID())
	d.Merge([][]byte{cert}, testNow())
	v, err := a.signer.Revoke(a.net, keys.Revocation{Key: id.Public().Sign, Issued: testNow()})
	check(t, err)
	raw, err := record.FromRevocation(v.Raw)
	check(t, err)
	delta, res := d.Merge([][]byte{raw}, testNow())
	if len(delta) != 1 || !slices.Equal(res.Removed, []keys.NodeID{id.ID()}) || d.Member(id.ID()) != nil || len(d.Members()) != 0 {
		t.Errorf("%v", res)
	}
	if len(res.Alarms) != 1 || res.Alarms[0].Kind != SelfRevoked {
		t.Errorf("alarms %v", res.Alarms)
	}
	// A newer certificate by the same signer does not bring the key back: the revocation has no serial.
	if _, res := d.Merge([][]byte{a.issue(a.signer, id, "stolen", keys.Roles{keys.RoleMember}, testNow().Add(time.Hour))}, testNow()); len(res.Changed) > 0 {
		t.Errorf("%v", res)
	}
}

// An admin that is revoked, with nothing said of what it signed, admits nobody from then on; whom it admitted before stays.
func TestRevokedSignerAdmitsNobody(t *testing.T) {
	a := newAuthority(t)
	rogue, signer := a.newSigner()
	before, _ := keys.NewIdentity()
	after, _ := keys.NewIdentity()
	root, err := a.root.Revoke(keys.Revocation{Key: rogue.Public().Sign, Issued: testNow().Add(time.Hour)})
	check(t, err)
	raw, err := record.FromRevocation(root.Raw)
	check(t, err)
	d := a.directory(raw,
		a.issue(signer, before, "before", keys.Roles{keys.RoleMember}, testNow()),
		a.issue(signer, after, "after", keys.Roles{keys.RoleMember}, testNow().Add(2*time.Hour)))
	if d.Member(before.ID()) == nil || d.Member(after.ID()) != nil {
		t.Errorf("members %v", d.Members())
	}
}

func TestExpiredStaysWithFlag(t *testing.T) {
	a := newAuthority(t)
	id, cert := a.member("old")
	d := a.directory(cert)
	later := testNow().Add(91 * 24 * time.Hour)
	if changed := d.Advance(later); !slices.Equal(changed, []keys.NodeID{id.ID()}) || !d.Member(id.ID()).Expired {
		t.Errorf("changed %v", changed)
	}
	if d.Advance(later) != nil && len(d.Advance(later)) > 0 {
		t.Error("changes again")
	}
	fresh := New(a.trust, keys.NodeID{1}) // who hears of it only now believes as much
	fresh.Merge([][]byte{cert}, later)
	if m := fresh.Member(id.ID()); m == nil || !m.Expired {
		t.Errorf("%v", m)
	}
	early := New(a.trust, keys.NodeID{1}) // a clock that stands at 1970 loses nobody
	early.Merge([][]byte{cert}, time.Unix(0, 0))
	if m := early.Member(id.ID()); m == nil || !m.Early || m.Expired {
		t.Errorf("%v", m)
	}
	// A newcomer of the same name does not suffer from who is gone.
	_, other := a.member("old")
	d.Advance(testNow()) // back in time, where both are valid
	d.Merge([][]byte{other}, testNow())
	if d.ByName("old") != nil {
		t.Error("the name resolves while both hold it")
	}
	newcomer, cert2 := a.memberAt("old", later)
	d2 := New(a.trust, keys.NodeID{1})
	d2.Merge([][]byte{cert, cert2}, later)
	if m := d2.ByName("old"); m == nil || m.ID != newcomer.ID() {
		t.Errorf("the name is not the newcomer's: %v", m)
	}
}

func (a *authority) memberAt(name string, at time.Time) (*keys.Identity, []byte) {
	id, err := keys.NewIdentity()
	check(a.t, err)
	return id, a.issue(a.signer, id, name, keys.Roles{keys.RoleMember}, at)
}

func TestOwnRecordIsSignedOnlyWhenChanged(t *testing.T) {
	a := newAuthority(t)
	id, cert := a.member("self")
	d := New(a.trust, id.ID())
	if _, err := d.SetNode(record.Node{}); err == nil {
		t.Error("signed without identity")
	}
	d.Own(id, 5)
	d.Merge([][]byte{cert}, testNow())
	body := record.Node{Software: "meshd 1"}
	first, err := d.SetNode(body)
	check(t, err)
	again, err := d.SetNode(body)
	check(t, err)
	if first == nil || again != nil {
		t.Errorf("first %d bytes, again %d", len(first), len(again))
	}
	body.Software = "meshd 2"
	second, err := d.SetNode(body)
	check(t, err)
	m := d.Member(id.ID())
	if second == nil || m.Node.Software != "meshd 2" || (m.NodeVersion != record.Version{Epoch: 5, Counter: 2}) {
		t.Errorf("%v %v", m.NodeVersion, m.Node)
	}

	restarted := New(a.trust, id.ID())
	restarted.Own(id, 6)
	if res := restarted.Load(d.Snapshot(), testNow()); len(res.Alarms) > 0 {
		t.Errorf("an ordinary restart alarms: %v", res.Alarms)
	}
	if raw, err := restarted.SetNode(body); raw != nil || err != nil {
		t.Errorf("after a restart the same is signed anew: %v", err)
	}
	body.Software = "meshd 3"
	if _, err := restarted.SetNode(body); err != nil || restarted.Member(id.ID()).NodeVersion.Epoch != 6 {
		t.Errorf("%v %v", restarted.Member(id.ID()).NodeVersion, err)
	}
}

func TestStateLossJumpsAbove(t *testing.T) {
	a := newAuthority(t)
	id, cert := a.member("self")
	for name, returned := range map[string]record.Version{
		"newer epoch":           {Epoch: 9, Counter: 4},
		"newer counter":         {Epoch: 2, Counter: 7},
		"same version, differs": {Epoch: 2, Counter: 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := New(a.trust, id.ID())
			d.Own(id, 2)
			d.Merge([][]byte{cert}, testNow())
			_, err := d.SetNode(record.Node{Software: "now"})
			check(t, err)
			delta, res := d.Merge([][]byte{a.node(id, returned, "192.0.2.1:1")}, testNow())
			m := d.Member(id.ID())
			if !res.Own || m.Node.Software != "now" || m.NodeVersion.Compare(returned) <= 0 || d.Epoch() != m.NodeVersion.Epoch {
				t.Errorf("%v %v %v", res, m.NodeVersion, m.Node)
			}
			if !slices.ContainsFunc(res.Alarms, func(al Alarm) bool { return al.Kind == StateLoss }) {
				t.Errorf("alarms %v", res.Alarms)
			}
			r, err := record.Parse(delta[len(delta)-1])
			check(t, err)
			if r.Version != m.NodeVersion {
				t.Errorf("what is passed on has version %v", r.Version)
			}
		})
	}
	t.Run("a clone does not start a race", func(t *testing.T) {
		d := New(a.trust, id.ID())
		d.Own(id, 2)
		d.Merge([][]byte{cert}, testNow())
		_, err := d.SetNode(record.Node{Software: "now"})
		check(t, err)
		signed := 0
		for i := range uint32(50) {
			if _, res := d.Merge([][]byte{a.node(id, record.Version{Epoch: 100 * i}, "192.0.2.1:1")}, testNow()); res.Own {
				signed++
			}
		}
		if signed > jumpBurst {
			t.Errorf("signed %d times at once", signed)
		}
		if _, res := d.Merge(nil, testNow().Add(jumpEvery)); !res.Own {
			t.Error("and never later")
		}
	})
	t.Run("no version is left", func(t *testing.T) {
		d := New(a.trust, id.ID())
		d.Own(id, 2)
		top := record.Version{Epoch: ^uint32(0), Counter: ^uint32(0)}
		d.Merge([][]byte{cert, a.node(id, top, "192.0.2.1:1")}, testNow())
		if _, err := d.SetNode(record.Node{}); !errors.Is(err, errExhausted) {
			t.Errorf("error %v", err)
		}
	})
}

func TestSetNetwork(t *testing.T) {
	a := newAuthority(t)
	d := New(a.trust, a.admin.ID())
	d.Own(a.admin, 1)
	d.Merge([][]byte{a.issue(a.signer, a.admin, "founder", keys.AllRoles(), testNow())}, testNow())
	if _, prefixes, mtu := d.Network(); prefixes[0] != keys.ULA(a.net) || mtu != DefaultMTU {
		t.Errorf("before it is known: %v %d", prefixes, mtu)
	}
	body := record.Network{Name: "home", Prefixes: []netip.Prefix{keys.ULA(a.net)}, MTU: 1400}
	raw, err := d.SetNetwork(body)
	check(t, err)
	if again, err := d.SetNetwork(body); again != nil || err != nil {
		t.Errorf("signed again: %v", err)
	}
	name, prefixes, mtu := d.Network()
	if name != "home" || !reflect.DeepEqual(prefixes, body.Prefixes) || mtu != 1400 {
		t.Errorf("%q %v %d", name, prefixes, mtu)
	}
	id, cert := a.member("nobody")
	mine, err := record.SignNetwork(id, a.net, record.Version{Epoch: 7}, record.Network{Name: "mine", MTU: 1280})
	check(t, err)
	if _, res := d.Merge([][]byte{cert, mine, raw}, testNow()); res.Network {
		t.Error("a member that is no admin has changed the network")
	}
}

func TestBudgetOfANeighbour(t *testing.T) {
	a := newAuthority(t)
	id, cert := a.member("flood")
	d := a.directory(cert)
	over := 0
	for i := range uint32(recordBurst + 500) {
		raw := a.node(id, record.Version{Epoch: 1, Counter: i + 1}, "192.0.2.1:1")
		_, _, res := d.HandleSync(id.ID(), Push([][]byte{raw})[0], testNow())
		over += res.Rejected[RejectBudget]
		if i%7 == 0 { // what is known already costs nothing
			d.HandleSync(id.ID(), Push([][]byte{raw})[0], testNow())
		}
	}
	if over != 500 {
		t.Errorf("%d were over the budget", over)
	}
}

// Whatever one sends, the answers are few.
func TestNoAmplification(t *testing.T) {
	a := newAuthority(t)
	_, raws := a.population(100)
	d := a.directory(raws...)
	from := keys.NodeID{9}
	empty := appendDigest(0, 0, ^uint64(0), nil)
	var in, out, messages int
	for range 10000 {
		replies, _, _ := d.HandleSync(from, empty, testNow())
		in += len(empty)
		messages += len(replies)
		for _, r := range replies {
			out += len(r)
		}
	}
	if messages > recordBurst+10 {
		t.Errorf("%d messages at once, %d bytes for %d", messages, out, in)
	}
	if replies, _, _ := d.HandleSync(from, empty, testNow().Add(time.Second)); len(replies) == 0 {
		t.Error("nothing comes later")
	}
}
