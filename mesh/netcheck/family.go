package netcheck

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"meshd/mesh/api"
	"meshd/nat-traversal"
)

// family is what is measured over IPv4 or IPv6.
type family struct {
	cfg    Config
	v6     bool
	source netip.Addr // ours towards the world; invalid: no route

	report  api.NetcheckFamily
	servers []api.NetcheckServer
}

// answer is what a server said.
type answer struct {
	server, mapped, other netip.AddrPort
	rtt                   time.Duration
}

func (f *family) measure(ctx context.Context) {
	f.report = api.NetcheckFamily{
		Family: familyName(f.v6), Mapping: traversal.MappingUnknown.String(), Filtering: traversal.FilteringUnknown.String(),
		Hairpin: "unknown", Reflexive: []string{},
	}
	if f.source.IsValid() {
		f.report.Address = f.source.String()
	}
	asked := f.asked()
	if len(asked) == 0 {
		return
	}
	s, err := open(ctx, f.v6, f.cfg.Mark)
	if err != nil {
		f.report.Problem = err.Error()
		return
	}
	defer s.Close()
	answers, result := f.askAll(ctx, s, asked)
	f.report.UDP, f.report.Mapping = result.UDP, result.Mapping.String()
	for _, a := range result.Reflexive {
		f.report.Reflexive = append(f.report.Reflexive, a.String())
	}
	if len(answers) == 0 {
		f.report.Problem = s.problem()
		return
	}
	var group sync.WaitGroup
	group.Go(func() { f.report.Filtering = f.filtering(ctx, answers).String() })
	group.Go(func() { f.report.PathMTU = f.mtu(ctx, answers) })
	f.report.Hairpin = f.hairpin(ctx, s, result)
	group.Wait()
}

// asked are the servers of this family.
func (f *family) asked() (list []netip.AddrPort) {
	for _, a := range f.cfg.Servers {
		if a.Addr().Is6() == f.v6 && !slices.Contains(list, a) && len(list) < maxServers {
			list = append(list, a)
		}
	}
	return list
}

// askAll asks every server, and the other addresses of those that have one.
func (f *family) askAll(ctx context.Context, s *socket, asked []netip.AddrPort) (answers []answer, result traversal.Result) {
	client := traversal.NewClient(newTxID)
	local := s.local()
	if f.source.IsValid() {
		client.SetLocal([]netip.AddrPort{netip.AddrPortFrom(f.source, local.Port())})
	}
	servers := slices.Clone(asked)
	begin := time.Now()
	client.SetServers(begin, servers)
	sent, ids := map[netip.AddrPort]time.Time{}, map[netip.AddrPort]traversal.TxID{}
	for deadline := begin.Add(answerTime); len(answers) < len(servers) && ctx.Err() == nil; {
		now := time.Now()
		if !now.Before(deadline) {
			break
		}
		queries, next := client.Poll(now)
		for _, q := range queries {
			s.send(q.To, q.Data)
			sent[q.To], ids[q.To] = now, traversal.TxID(q.Data[8:20])
		}
		if next.IsZero() || next.After(deadline) {
			next = deadline
		}
		from, b, ok := s.receive(ctx, next)
		if !ok || slices.ContainsFunc(answers, func(a answer) bool { return a.server == from }) || !client.Handle(time.Now(), from, b) {
			continue
		}
		a := answer{server: from, rtt: time.Since(sent[from])}
		a.mapped, _ = traversal.ParseAnswer(b, ids[from])
		if other, ok := traversal.OtherAddress(b, ids[from]); ok && other.Addr().Is6() == f.v6 {
			a.other = other
			servers = f.withOthers(servers, from, other)
			client.SetServers(now, servers)
		}
		answers = append(answers, a)
	}
	for _, server := range servers {
		f.servers = append(f.servers, serverReport(server, answers))
	}
	return answers, client.Result(time.Now())
}

// withOthers adds the three other places at which a server of RFC 5780 listens:
// by comparing them the mapping is known for certain.
func (f *family) withOthers(servers []netip.AddrPort, from, other netip.AddrPort) []netip.AddrPort {
	for _, a := range []netip.AddrPort{other, netip.AddrPortFrom(from.Addr(), other.Port()), netip.AddrPortFrom(other.Addr(), from.Port())} {
		if !slices.Contains(servers, a) && len(servers) < maxServers {
			servers = append(servers, a)
		}
	}
	return servers
}

func serverReport(server netip.AddrPort, answers []answer) api.NetcheckServer {
	r := api.NetcheckServer{Addr: server.String()}
	for _, a := range answers {
		if a.server == server {
			r.Answered, r.RTTMillis = true, float64(a.rtt.Microseconds())/1000
			if a.mapped.IsValid() {
				r.Mapped = a.mapped.String()
			}
		}
	}
	return r
}

// hairpin reports whether a packet to our own outside address comes back, from
// another port of ours (RFC 5780, 3.5).
func (f *family) hairpin(ctx context.Context, s *socket, result traversal.Result) string {
	if result.Mapping == traversal.MappingNone {
		return "not-needed"
	}
	if len(result.Reflexive) == 0 || result.Mapping != traversal.MappingEndpointIndependent {
		return "unknown" // nobody could use it
	}
	other, err := open(ctx, f.v6, f.cfg.Mark)
	if err != nil {
		return "unknown"
	}
	defer other.Close()
	txid := newTxID()
	for range 2 {
		other.send(result.Reflexive[0], traversal.Request(txid))
		for deadline := time.Now().Add(400 * time.Millisecond); ; {
			_, b, ok := s.receive(ctx, deadline)
			if !ok {
				break
			}
			if isRequest(b, txid) {
				return "yes"
			}
		}
	}
	return "no"
}

func isRequest(b []byte, txid traversal.TxID) bool {
	return len(b) >= 20 && b[0] == 0 && b[1] == 1 && traversal.TxID(b[8:20]) == txid
}

// filtering asks helpers to answer from elsewhere, to a socket that has sent to
// nobody else.
func (f *family) filtering(ctx context.Context, answers []answer) traversal.Filtering {
	helpers := 0
	for _, a := range answers {
		if helpers++; helpers > maxHelpers {
			break
		}
		s, err := open(ctx, f.v6, f.cfg.Mark)
		if err != nil {
			break
		}
		found := f.filteringBy(ctx, s, a)
		s.Close()
		if found != traversal.FilteringUnknown {
			return found
		}
	}
	return traversal.FilteringUnknown
}

func (f *family) filteringBy(ctx context.Context, s *socket, a answer) traversal.Filtering {
	txid := newTxID()
	first, ok := s.ask(ctx, a.server, traversal.Request(txid), txid, 3)
	if !ok {
		return traversal.FilteringUnknown
	}
	var port, host bool
	if a.other.IsValid() {
		port, host = true, true
		s.send(a.server, traversal.ChangeRequest(txid, true))
		s.send(a.server, traversal.ChangeRequest(txid, false))
	} else if f.cfg.Elsewhere != nil {
		var err error
		if port, host, err = f.cfg.Elsewhere(ctx, a.server, txid, first.mapped); err != nil {
			return traversal.FilteringUnknown
		}
	}
	if !port && !host {
		return traversal.FilteringUnknown
	}
	var gotPort, gotHost bool
	for deadline := time.Now().Add(elsewhereTime); !gotHost; {
		from, b, ok := s.receive(ctx, deadline)
		if !ok {
			break
		}
		if _, err := traversal.ParseAnswer(b, txid); err != nil || from == a.server {
			continue
		}
		gotHost = gotHost || from.Addr() != a.server.Addr()
		gotPort = gotPort || from.Addr() == a.server.Addr()
	}
	return judge(port, host, gotPort, gotHost)
}

// judge concludes from what was sent from elsewhere, and what of it came.
func judge(port, host, gotPort, gotHost bool) traversal.Filtering {
	switch {
	case gotHost:
		return traversal.FilteringEndpointIndependent
	case gotPort && host:
		return traversal.FilteringAddressDependent
	case gotPort, !port:
		return traversal.FilteringUnknown // nobody else has sent
	}
	return traversal.FilteringAddressAndPortDependent
}

// sizes are those of packets that paths are known to end at: Ethernet, PPPoE,
// tunnels, IPv6's least.
func sizes() []int { return []int{1280, 1340, 1380, 1400, 1420, 1452, 1460, 1480, 1492, 1500} }

// mtu is the largest of sizes that is answered; 0 if no server answers large
// requests. Servers limit how much they answer, so that they are asked in turn,
// the most likely size first, and what was not answered is asked again at the end.
func (f *family) mtu(ctx context.Context, answers []answer) int {
	s, err := open(ctx, f.v6, f.cfg.Mark)
	if err != nil {
		return 0
	}
	defer s.Close()
	headers := 28 // of IP and UDP
	if f.v6 {
		headers = 48
	}
	turn := 0
	fits := func(size, times int) bool {
		for range times {
			txid := newTxID()
			server := answers[turn%len(answers)].server
			turn++
			if _, ok := s.ask(ctx, server, traversal.SizedRequest(txid, size-headers), txid, 1); ok {
				return true
			}
		}
		return false
	}
	list := sizes()
	last := len(list) - 1
	if fits(list[last], 2) {
		return list[last]
	}
	if !fits(list[0], 3) {
		return 0
	}
	low, high := 0, last // low fits, high does not
	for high-low > 1 && ctx.Err() == nil {
		if mid := (low + high) / 2; fits(list[mid], 2) {
			low = mid
		} else {
			high = mid
		}
	}
	for low < last && fits(list[low+1], 2) {
		low++
	}
	return list[low]
}
