package portmap

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// fakeRouter plays a router for a plan, in a time of its own.
type fakeRouter struct {
	t     *testing.T
	p     plan
	now   time.Time
	speak []Protocol // what it answers probes with
	grant []Protocol // what of it works
	life  time.Duration
	ip    string
	dead  bool
	reset bool // it has forgotten everything

	probes int
	opens  []Protocol
	checks int
}

func newRouter(t *testing.T, speak ...Protocol) *fakeRouter {
	r := &fakeRouter{t: t, now: time.Unix(1e9, 0), speak: speak, grant: speak, life: 2 * time.Hour, ip: "198.18.0.1"}
	r.p.setRoute(Route{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("192.168.1.10")}, r.now)
	return r
}

// run lets time pass.
func (r *fakeRouter) run(d time.Duration) {
	r.t.Helper()
	end := r.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 10_000 {
			r.t.Fatal("the plan does not let time pass")
		}
		todo, use, until := r.p.next(r.now)
		switch todo {
		case rest:
			if until.IsZero() || until.After(end) {
				r.now = end
				return
			}
			if !until.After(r.now) {
				r.t.Fatal("rest until the past")
			}
			r.now = until
		case probe:
			r.probes++
			var found [protocols]bool
			for _, p := range r.speak {
				found[p] = !r.dead
			}
			r.p.probed(found, r.now)
		case open:
			r.opens = append(r.opens, use)
			if r.dead || !slices.Contains(r.grant, use) {
				r.p.opened(nil, r.now)
				continue
			}
			r.reset = false
			r.p.opened(&Mapping{Protocol: use, External: netip.AddrPortFrom(netip.MustParseAddr(r.ip), 40000), Lifetime: r.life}, r.now)
		case check:
			r.checks++
			changed := r.reset || r.p.mapping.External.Addr() != netip.MustParseAddr(r.ip)
			r.p.checked(changed && !r.dead, r.dead, r.now)
		}
	}
}

func (r *fakeRouter) external() string {
	if r.p.mapping == nil {
		return ""
	}
	return r.p.mapping.External.Addr().String()
}

func TestPlanRenews(t *testing.T) {
	r := newRouter(t, PCP, NATPMP, UPnP)
	r.run(10 * time.Hour)
	if r.external() == "" || r.probes != 1 || slices.ContainsFunc(r.opens, func(p Protocol) bool { return p != PCP }) {
		t.Errorf("%q, %d probes, opened by %v", r.external(), r.probes, r.opens)
	}
	if n := len(r.opens); n < 10 || n > 12 {
		t.Errorf("asked %d times in 10 h for 2 h each", n)
	}
	if r.checks < 550 || r.checks > 610 {
		t.Errorf("%d checks in 10 h", r.checks)
	}
}

// TestPlanRemembers: what works is tried first the next time, also when better ones are there.
func TestPlanRemembers(t *testing.T) {
	r := newRouter(t, PCP, NATPMP, UPnP)
	r.grant = []Protocol{UPnP}
	r.run(time.Minute)
	if want := []Protocol{PCP, NATPMP, UPnP}; !slices.Equal(r.opens, want) || r.external() == "" {
		t.Fatalf("opened by %v", r.opens)
	}
	r.opens = nil
	r.p.setRoute(Route{r.p.route.Gateway, netip.MustParseAddr("192.168.1.11")}, r.now) // another address of ours
	if r.external() != "" {
		t.Error("a mapping for another address is kept")
	}
	r.run(time.Minute)
	if want := []Protocol{UPnP}; !slices.Equal(r.opens, want) {
		t.Errorf("opened by %v", r.opens)
	}
	r.opens = nil
	r.p.setRoute(Route{netip.MustParseAddr("192.168.2.1"), netip.MustParseAddr("192.168.2.11")}, r.now) // another router
	r.run(time.Minute)
	if len(r.opens) != 3 || r.opens[0] != PCP {
		t.Errorf("at another router: opened by %v", r.opens)
	}
}

func TestPlanRouterChanges(t *testing.T) {
	r := newRouter(t, PCP)
	r.run(10 * time.Minute)
	r.ip = "198.18.0.2"
	r.run(2 * checkEvery)
	if r.external() != r.ip {
		t.Errorf("after another address: %q", r.external())
	}
	r.reset, r.opens = true, nil
	r.run(2 * checkEvery)
	if r.reset || len(r.opens) != 1 {
		t.Errorf("after a restart: opened %v", r.opens)
	}
	r.opens = nil
	r.p.announced(r.now) // although its count has not told
	r.run(time.Second)
	for range 100 {
		r.p.announced(r.now) // a liar
		r.run(time.Millisecond)
	}
	r.run(settle)
	if len(r.opens) != 2 { // for the first, and once for all of the others
		t.Errorf("after announcements: opened %d times", len(r.opens))
	}
	r.dead, r.opens = true, nil
	r.run(checkEvery)
	r.dead = false // a short sleep
	r.run(checkEvery)
	if len(r.opens) != 1 || r.external() != r.ip {
		t.Errorf("after silence: opened %v, %q", r.opens, r.external())
	}
	r.dead = true
	r.run((missedChecks + 1) * checkEvery)
	if r.external() != "" {
		t.Error("a router that is gone still maps")
	}
	r.dead = false
	r.run(2 * retryMost)
	if r.external() != r.ip {
		t.Error("a router that is back does not")
	}
}

// TestPlanIsQuiet: where there is nothing to be had the router is asked rarely, however often the network changes.
func TestPlanIsQuiet(t *testing.T) {
	r := newRouter(t)
	r.run(24 * time.Hour)
	if r.probes > 60 || r.probes < 40 {
		t.Errorf("probed %d times in a day", r.probes)
	}
	r.probes = 0
	for range 600 {
		r.p.setRoute(r.p.route, r.now)
		r.run(time.Second)
	}
	if r.probes > 70 || r.probes < 50 {
		t.Errorf("probed %d times in 10 minutes of changes", r.probes)
	}
	r.p.setRoute(Route{}, r.now)
	r.probes = 0
	r.run(time.Hour)
	if r.probes != 0 {
		t.Error("asked without a router")
	}
}

// TestPlanHostileLifetimes: neither a second nor a hundred years make us busy or deaf.
func TestPlanHostileLifetimes(t *testing.T) {
	for _, life := range []time.Duration{time.Second, time.Minute, 1 << 31 * time.Second, 0} {
		r := newRouter(t, PCP)
		r.life = life
		r.run(24 * time.Hour)
		if n := len(r.opens); n < 2 || n > 24*60*2+1 || r.external() == "" {
			t.Errorf("%v: asked %d times a day", life, n)
		}
	}
}
