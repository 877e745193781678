package mesh_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"meshd/mesh/api"
)

// knowsNot waits until n has dropped a member, and returns how long that took.
func (n *node) knowsNot(name string, limit time.Duration) time.Duration {
	n.t.Helper()
	began := time.Now()
	for time.Since(began) < limit {
		if !slices.ContainsFunc(n.status().Peers, func(p api.Peer) bool { return p.Name == name }) {
			return time.Since(began)
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.t.Fatalf("%s still has %s as a member after %v", n.name, name, limit)
	return 0
}

// hasRole waits until n sees a member in a role.
func (n *node) hasRole(name, role string, limit time.Duration) {
	n.t.Helper()
	for began := time.Now(); time.Since(began) < limit; time.Sleep(20 * time.Millisecond) {
		st := n.status()
		if st.Self.Name == name && slices.Contains(st.Self.Roles, role) {
			return
		}
		if slices.ContainsFunc(st.Peers, func(p api.Peer) bool { return p.Name == name && slices.Contains(p.Roles, role) }) {
			return
		}
	}
	n.t.Fatalf("%s does not see %s as %s after %v", n.name, name, role, limit)
}

// unreachable sends frames both ways for a while; none arrives.
func unreachable(t *testing.T, a, b *node, span time.Duration) {
	t.Helper()
	toA, toB := a.mac(), b.mac()
	drainAll(a, b)
	for began, i := time.Now(), uint32(1); time.Since(began) < span; i++ {
		a.send(toB, i)
		b.send(toA, i)
		for _, n := range []*node{a, b} {
			if n.take(20*time.Millisecond) != nil {
				t.Fatalf("a frame passed between %s and %s", a.name, b.name)
			}
		}
	}
}

// A member that is revoked is cut off by everyone within 5 s, under traffic, on
// neighbours and others, and stays out after its restart.
func TestRevoke(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = 8
		nodes := w.mesh(14) // not all are neighbours
		v := nodes[5]
		for _, n := range nodes {
			if n != v {
				reaches(t, v, n, 5*time.Second)
			}
		}
		m, err := nodes[0].ask().Revoke(t.Context(), api.RevokeOptions{Name: v.name})
		if err != nil || m.Name != v.name || len(m.Also) != 0 {
			t.Fatalf("revoke: %+v, %v", m, err)
		}
		began := time.Now()
		for _, n := range nodes {
			if n != v {
				n.knowsNot(v.name, 5*time.Second-time.Since(began))
			}
		}
		t.Logf("cut off everywhere after %v", time.Since(began))
		for _, n := range []*node{nodes[1], nodes[7], nodes[13]} {
			unreachable(t, v, n, 2*time.Second)
		}
		if err := v.stop(); err != nil {
			t.Fatal(err)
		}
		v = w.restart(v)
		time.Sleep(5 * time.Second)
		unreachable(t, v, nodes[2], 5*time.Second)
		reaches(t, nodes[2], nodes[3], 5*time.Second)
	})
}

// Acts that make no sense, or are not for whoever asks for them.
func TestRefusedActs(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		nodes := w.mesh(3)
		ctx := t.Context()
		for _, c := range []struct {
			name string
			err  error
			want api.Code
		}{
			{"revoke by a member", second(nodes[1].ask().Revoke(ctx, api.RevokeOptions{Name: "n2"})), api.CodeDenied},
			{"role by a member", second(nodes[1].ask().SetRoles(ctx, "n1", []string{"admin"})), api.CodeDenied},
			{"revoke nobody", second(nodes[0].ask().Revoke(ctx, api.RevokeOptions{Name: "zz"})), api.CodeUnknownName},
			{"revoke several", second(nodes[0].ask().Revoke(ctx, api.RevokeOptions{Name: "n"})), api.CodeAmbiguousName},
			{"revoke itself", second(nodes[0].ask().Revoke(ctx, api.RevokeOptions{Name: "n0"})), api.CodeUsage},
			{"no such role", second(nodes[0].ask().SetRoles(ctx, "n1", []string{"king"})), api.CodeUsage},
			{"no admin any more", second(nodes[0].ask().SetRoles(ctx, "n0", []string{"member"})), api.CodeUsage},
			{"the root key leaves", nodes[0].ask().Leave(ctx, false), api.CodeFailed},
		} {
			if got := api.CodeOf(c.err); got != c.want {
				t.Errorf("%s: %v (%s), want %s", c.name, c.err, got, c.want)
			}
		}
		for _, n := range nodes[1:] {
			reaches(t, nodes[0], n, 5*time.Second)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// Roles are changed; a second admin admits, and is revoked with whom it has
// admitted since a time. What another admits with the revoked one's help counts
// for nobody.
func TestRolesAndCascade(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = 8
		nodes := w.mesh(4)
		ctx := t.Context()
		m, err := nodes[0].ask().SetRoles(ctx, "n2", []string{"router", "vlan=7"})
		if err != nil || !slices.Equal(m.Roles, []string{"member", "router", "vlan=7"}) {
			t.Fatalf("%+v, %v", m, err)
		}
		for _, n := range nodes {
			n.hasRole("n2", "router", 5*time.Second)
		}
		if _, err := nodes[0].ask().SetRoles(ctx, "n1", []string{"admin"}); err != nil {
			t.Fatal(err)
		}
		nodes[3].hasRole("n1", "admin", 5*time.Second)
		early := w.admittedBy(nodes[1], "early", "198.18.5.1")
		time.Sleep(time.Minute)
		theft := time.Now()
		time.Sleep(time.Second)
		late := w.admittedBy(nodes[1], "late", "198.18.5.2")
		reaches(t, late, nodes[3], 5*time.Second)
		if _, err := nodes[1].ask().SetRoles(ctx, "n3", []string{"admin"}); api.CodeOf(err) != api.CodeDenied {
			t.Errorf("an admin without the root key made an admin: %v", err)
		}
		m, err = nodes[0].ask().Revoke(ctx, api.RevokeOptions{Name: "n1", Since: theft})
		if err != nil || len(m.Also) != 1 || m.Also[0] != late.status().Self.ID {
			t.Fatalf("%+v, %v", m, err)
		}
		began := time.Now()
		for _, n := range []*node{nodes[0], nodes[2], nodes[3], early} {
			n.knowsNot("n1", 5*time.Second-time.Since(began))
			n.knowsNot("late", 5*time.Second-time.Since(began))
		}
		reaches(t, early, nodes[3], 5*time.Second)
		// The revoked one goes on admitting: nobody else believes it.
		if text, err := nodes[1].ask().Invite(ctx, api.InviteOptions{Uses: 1, Expires: time.Hour}); err == nil {
			stray := w.up(w.host("198.18.5.3"), "stray", text)
			time.Sleep(20 * time.Second)
			if slices.ContainsFunc(nodes[3].status().Peers, func(p api.Peer) bool { return p.Name == "stray" }) {
				t.Error("whom a revoked admin admits is a member")
			}
			stray.stop()
		}
	})
}

// An admin that is one no longer loses its desk, and has one again later.
func TestAdminForATime(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = 8
		nodes := w.mesh(3)
		ctx := t.Context()
		for round := range 2 {
			if _, err := nodes[0].ask().SetRoles(ctx, "n1", []string{"admin"}); err != nil {
				t.Fatal(err)
			}
			guest := w.admittedBy(nodes[1], []string{"first", "second"}[round], []string{"198.18.6.1", "198.18.6.2"}[round])
			reaches(t, guest, nodes[2], 5*time.Second)
			time.Sleep(2 * time.Second) // whole seconds count
			if _, err := nodes[0].ask().SetRoles(ctx, "n1", []string{"member"}); err != nil {
				t.Fatal(err)
			}
			nodes[1].lacksRole("admin", 5*time.Second)
			if _, err := nodes[1].ask().Invite(ctx, api.InviteOptions{Uses: 1, Expires: time.Hour}); api.CodeOf(err) != api.CodeDenied {
				t.Errorf("round %d: a former admin makes invites: %v", round, err)
			}
			time.Sleep(10 * time.Second)
			reaches(t, guest, nodes[1], 5*time.Second)
		}
	})
}

// lacksRole waits until n has lost a role.
func (n *node) lacksRole(role string, limit time.Duration) {
	n.t.Helper()
	for began := time.Now(); slices.Contains(n.status().Self.Roles, role); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > limit {
			n.t.Fatalf("%s still has the role %s", n.name, role)
		}
	}
}

// admittedBy is a node that an admin admits, once that can.
func (w *world) admittedBy(admin *node, name, addr string) *node {
	w.t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		text, err := admin.ask().Invite(w.t.Context(), api.InviteOptions{Uses: 1, Expires: time.Hour})
		if err == nil {
			n := w.up(w.host(addr), name, text)
			n.waitReady(10 * time.Second)
			return n
		}
		if time.Since(began) > 10*time.Second {
			w.t.Fatalf("%s cannot admit: %v", admin.name, err)
		}
	}
}

// Who leaves is a member no longer anywhere, and has no state.
func TestLeave(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = 8
		nodes := w.mesh(4)
		v := nodes[2]
		if err := v.ask().Leave(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if err := v.failure(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*node{nodes[0], nodes[1], nodes[3]} {
			n.knowsNot("n2", 5*time.Second)
		}
		if _, err := os.Stat(v.state); !os.IsNotExist(err) {
			t.Errorf("its state is still there: %v", err)
		}
		// Without an admin, it takes force.
		nodes[0].kill()
		if err := nodes[3].ask().Leave(t.Context(), false); api.CodeOf(err) != api.CodeNotConnected {
			t.Errorf("leave without an admin: %v", err)
		}
		reaches(t, nodes[1], nodes[3], 5*time.Second)
		if err := nodes[3].ask().Leave(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := nodes[3].failure(5 * time.Second); err != nil {
			t.Fatal(err)
		}
	})
}

// Certificates are renewed when half their life is over, by an admin that comes
// back later, and once.
func TestRenewal(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.level = 8
		nodes := w.mesh(3)
		for _, n := range nodes {
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
		}
		before := time.Now()
		time.Sleep(60 * 24 * time.Hour)
		for _, i := range []int{1, 2} {
			nodes[i] = w.restart(nodes[i])
			nodes[i].waitReady(5 * time.Second)
		}
		time.Sleep(time.Minute)
		if end := nodes[1].status().Self.CertificateExpires; end.After(before.Add(91 * 24 * time.Hour)) {
			t.Errorf("renewed until %v without an admin", end)
		}
		nodes[0] = w.restart(nodes[0])
		nodes[0].waitReady(5 * time.Second)
		time.Sleep(5 * time.Minute)
		ends := map[string]time.Time{}
		for _, n := range nodes {
			if ends[n.name] = n.status().Self.CertificateExpires; ends[n.name].Before(time.Now().Add(89 * 24 * time.Hour)) {
				t.Errorf("%s is not renewed: its certificate ends %v", n.name, ends[n.name])
			}
		}
		time.Sleep(20 * time.Minute)
		for _, n := range nodes {
			if !n.status().Self.CertificateExpires.Equal(ends[n.name]) {
				t.Errorf("%s was renewed twice", n.name)
			}
		}
		if err := nodes[1].stop(); err != nil {
			t.Fatal(err)
		}
		nodes[1] = w.restart(nodes[1]) // the new one is kept
		nodes[1].waitReady(5 * time.Second)
		if !nodes[1].status().Self.CertificateExpires.Equal(ends["n1"]) {
			t.Error("the new certificate is lost by a restart")
		}
		reaches(t, nodes[1], nodes[2], 5*time.Second)
	})
}
