//go:build linux

package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"meshd/integration/lab"
)

const (
	idleRate  = 1000                    // bytes/s that an idle member may send on its uplink in total, headers of IP and UDP included
	idleFirst = 1500 * time.Millisecond // from need to the first answer, questions for neighbours included
)

// restsAfter is after which time nothing is left of the start: contacts are pinged no more often than others (5 min), neighbours
// that others stood in for while all started are back (5 min), and sessions have ended that nobody uses (3 min).
const restsAfter = 8 * time.Minute

// idleMembers is how many there are: 16, or what MESHD_MEMBERS says. (100 take a minute to build on two cores.)
func idleMembers() int {
	if n, err := strconv.Atoi(os.Getenv("MESHD_MEMBERS")); err == nil && n > 1 {
		return n
	}
	return 16
}

// TestIdleBehindNATs lets members behind NATs do nothing, counts what leaves their sites, and then lets pairs of them meet.
// With many repeats (`make soak`) it waits until nothing is left of joining. Else it starts all members anew, soon after
// which more sessions are alive than there will be, and holds them to more.
func TestIdleBehindNATs(t *testing.T) {
	w := newWorld(t)
	home := w.net.Host("home", lab.HostConfig{V4: true})
	second := w.net.Host("second", lab.HostConfig{V4: true})
	var sites []*lab.Site
	var nodes []*lab.Node
	members := idleMembers()
	for i := range members {
		name := fmt.Sprintf("member-%d", i+1)
		s := w.net.Site(name, lab.SiteConfig{V4: true, NAT: lab.Home})
		sites = append(sites, s)
		nodes = append(nodes, w.quietNode(s.Host(name)))
	}
	w.must(w.lab.Ready(w.within(2 * time.Minute)))
	start := time.Now()
	founder := w.found(home)
	invite := w.invite(founder, "--uses", strconv.Itoa(members+1))
	w.join(second, invite)
	w.joinAll(invite, nodes, nil)
	w.eventually(2*time.Minute, "all know all", func() error {
		var few []string
		for _, n := range nodes {
			if s := w.status(n); len(s.Peers) != members+1 {
				few = append(few, fmt.Sprintf("%s %d", n.Host.Name(), len(s.Peers)))
			}
		}
		if few != nil {
			return fmt.Errorf("of %d others know: %v", members+1, few)
		}
		return nil
	})
	t.Logf("%d members know each other after %v", members+2, round(time.Since(start)))
	patient, most := repeats(t) >= 20, idleRate
	if patient {
		time.Sleep(restsAfter) // nothing happens, which is what it is for
	} else {
		w.restart(nodes)
		most *= 2
	}
	w.rest(sites, nodes, float64(most))
	w.countSessions(nodes)
	w.strangersMeet(nodes, !patient)
}

// rest measures what each site sends while nothing happens, and what the packets of the host are that was the busiest before.
// Whatever the start has left behind has its time to end before. With many repeats it looks for as long as it takes all
// sessions that are kept to get new keys once.
func (w *world) rest(sites []*lab.Site, nodes []*lab.Node, most float64) {
	w.Helper()
	span := idleTime
	if repeats(w.T) >= 20 {
		span = 150 * time.Second
	}
	packetRate := 0.0 // of the mean member, last
	rates := func(d time.Duration) []float64 {
		before := make([]lab.Counters, len(sites))
		var err error
		for i, s := range sites {
			before[i], err = s.Counters()
			w.must(err)
		}
		start := time.Now()
		time.Sleep(d) // what is measured is so long a time of rest
		all := make([]float64, len(sites))
		packetRate = 0
		for i, s := range sites {
			after, err := s.Counters()
			w.must(err)
			all[i] = float64(after.Out.Bytes-before[i].Out.Bytes) / time.Since(start).Seconds()
			packetRate += float64(after.Out.Packets-before[i].Out.Packets) / time.Since(start).Seconds() / float64(len(sites))
		}
		return all
	}
	var last []float64
	for range 2 {
		last = rates(5 * time.Second)
		w.Logf("idle: the mean member sends %.0f bytes/s, the busiest %.0f", mean(last), slices.Max(last))
		if slices.Max(last) < most*3/4 {
			break
		}
	}
	one := nodes[slices.Index(last, slices.Max(last))].Host
	seen, err := one.Capture("eth0")
	w.must(err)
	last = rates(span)
	w.Logf("%s sends in %v: %s", one.Name(), span, packets(seen.Frames()))
	w.must(seen.Close())
	w.Logf("idle for %v: the mean member sends %.0f bytes/s in %.1f packets/s, the busiest %.0f bytes/s", span, mean(last), packetRate, slices.Max(last))
	for i, rate := range last {
		if rate > most {
			w.Errorf("%s sends %.0f bytes/s, want %.0f at most", sites[i].Name(), rate, most)
		}
	}
}

// countSessions says how many sessions members have.
func (w *world) countSessions(nodes []*lab.Node) {
	w.Helper()
	var counts []float64
	for _, n := range nodes {
		connected := 0.0
		for _, p := range w.status(n).Peers {
			if p.State == "direct" || p.State == "relayed" {
				connected++
			}
		}
		counts = append(counts, connected)
	}
	w.Logf("the mean member has %.1f sessions, the busiest %.0f", mean(counts), slices.Max(counts))
}

// packets counts UDP datagrams that were sent, and their bytes from the IP header on, by what they are.
func packets(frames []lab.Frame) string {
	names := map[byte]string{1: "initiation", 2: "response", 3: "cookie", 4: "data", 0xd1: "hello", 0xd2: "probe", 0xd3: "relay"}
	count := make(map[string]lab.Count)
	for _, f := range frames {
		const ipv4Header, udpHeader = 20, 8
		if !f.Out || len(f.Data) <= 14+ipv4Header+udpHeader || f.Data[12] != 8 || f.Data[13] != 0 || f.Data[23] != 17 {
			continue
		}
		payload := f.Data[14+ipv4Header+udpHeader:]
		name := names[payload[0]]
		switch {
		case name == "relay" && len(payload) > 8:
			name += " of " + names[payload[8]]
		case name == "":
			name = "STUN or other"
		}
		sum := count[name]
		count[name] = lab.Count{Packets: sum.Packets + 1, Bytes: sum.Bytes + uint64(len(f.Data)-14)}
	}
	return fmt.Sprintf("%+v", count)
}

func mean(all []float64) float64 {
	sum := 0.0
	for _, x := range all {
		sum += x
	}
	return sum / float64(len(all))
}

// strangersMeet lets pairs that have no session exchange a first ping. Where the kernels are kept from asking for
// neighbours, they are told.
func (w *world) strangersMeet(nodes []*lab.Node, tell bool) {
	w.Helper()
	var pairs [][2]*lab.Node
	for i, a := range nodes {
		for _, b := range nodes[:i] {
			pairs = append(pairs, [2]*lab.Node{a, b})
		}
	}
	rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	var first []time.Duration
	warm := 0
	for _, pair := range pairs {
		if len(first) >= min(20, len(nodes)/2) {
			break
		}
		a, b := pair[0], pair[1]
		to, connected := w.of(a, b)
		if connected {
			warm++
			continue
		}
		if tell {
			w.must(errors.Join(neighbour(a, b, to, w.mac(b)), neighbour(b, a, w.addr(a), w.mac(a))))
		}
		s, err := a.Host.Ping(w.within(20*time.Second), to, 100, lab.PingOptions{})
		w.must(err)
		if s.Received == 0 {
			w.Errorf("%s does not reach %s: %v", a.Host.Name(), b.Host.Name(), s)
			continue
		}
		first = append(first, s.First)
	}
	w.Logf("%d pairs had a session already", warm)
	answers := quantiles{what: "first answer", all: first, bound: idleFirst}
	w.Log(answers)
	if err := answers.beyond(); err != nil {
		w.Error(err)
	}
}

// of is another member's address, and whether there is a session with it.
func (w *world) of(n, other *lab.Node) (netip.Addr, bool) {
	w.Helper()
	for _, p := range w.status(n).Peers {
		if p.Name == other.Host.Name() {
			return p.Addresses[0], p.State == "direct" || p.State == "relayed"
		}
	}
	w.Fatalf("%s does not know %s", n.Host.Name(), other.Host.Name())
	return netip.Addr{}, false
}
