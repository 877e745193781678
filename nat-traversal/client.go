package traversal

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// The timing of a Client.
const (
	firstWait   = 300 * time.Millisecond // for an answer, before the question is repeated; doubles
	maxSends    = 5                      // of one question: 9.3 s in all, as RFC 8489, 6.2.1 has 39.5 s
	askInterval = 25 * time.Second       // between questions to one server; below the 30 s of common NATs
	answerLife  = 90 * time.Second       // for how long an answer counts
	maxServers  = 16                     // asked at once
	maxReported = 4                      // reflexive addresses
)

// Query is a STUN request to be sent from the node's one socket.
type Query struct {
	To   netip.AddrPort
	Data []byte
}

// Client finds out how others see us, by asking STUN servers: members, or those
// that the operator named. It is pure: it does not read a clock or a socket. Its
// owner
//
//   - sends the queries that Poll returns, and calls Poll again at the time it
//     says and after every other call;
//   - hands every datagram of kind STUN to Handle;
//   - calls SetServers and SetLocal when these change, Refresh when the network has.
//
// An answer counts only if it comes from the address that was asked and carries
// the id of the last question to it.
type Client struct {
	newTxID func() TxID
	local   []netip.AddrPort
	servers []*server
}

// server is one that is asked.
type server struct {
	addr  netip.AddrPort
	txid  TxID
	sends int       // of the question that is open; 0: none is
	next  time.Time // when to ask or repeat; zero: at once

	mapped     netip.AddrPort // the last answer
	answeredAt time.Time      // zero: none yet
}

// NewClient makes a client without servers. newTxID has to return random ids.
func NewClient(newTxID func() TxID) *Client { return &Client{newTxID: newTxID} }

// SetServers says whom to ask, the most important first; more than 16 are not
// asked. What is known of those that stay is kept.
func (c *Client) SetServers(_ time.Time, servers []netip.AddrPort) {
	var list []*server
	for _, addr := range servers {
		addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		same := func(s *server) bool { return s.addr == addr }
		if addr.Port() == 0 || !addr.Addr().IsValid() || slices.ContainsFunc(list, same) {
			continue
		}
		if i := slices.IndexFunc(c.servers, same); i >= 0 {
			list = append(list, c.servers[i])
		} else {
			list = append(list, &server{addr: addr})
		}
		if len(list) == maxServers {
			break
		}
	}
	c.servers = list
}

// SetLocal tells the addresses that we send from (host candidates), by which the
// absence of a NAT is recognised.
func (c *Client) SetLocal(local []netip.AddrPort) { c.local = slices.Clone(local) }

// Refresh forgets all answers and has the next Poll ask everybody again.
func (c *Client) Refresh(_ time.Time) {
	for _, s := range c.servers {
		*s = server{addr: s.addr}
	}
}

// Poll returns what is to be sent now, and when to call again; zero when there
// is nothing to wait for.
func (c *Client) Poll(now time.Time) (queries []Query, next time.Time) {
	for _, s := range c.servers {
		if !now.Before(s.next) {
			if q, ok := s.ask(now, c.newTxID); ok {
				queries = append(queries, q)
			}
		}
		if next.IsZero() || s.next.Before(next) {
			next = s.next
		}
	}
	return queries, next
}

// ask asks or repeats, or gives up until the next interval.
func (s *server) ask(now time.Time, newTxID func() TxID) (Query, bool) {
	switch s.sends {
	case 0:
		s.txid = newTxID()
	case maxSends:
		s.sends = 0
		s.next = now.Add(askInterval)
		return Query{}, false
	}
	s.next = now.Add(firstWait << s.sends)
	s.sends++
	return Query{s.addr, Request(s.txid)}, true
}

// Handle takes a datagram of kind STUN; true if it was an answer to us.
func (c *Client) Handle(now time.Time, from netip.AddrPort, b []byte) bool {
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	i := slices.IndexFunc(c.servers, func(s *server) bool { return s.addr == from && s.sends > 0 })
	if i < 0 {
		return false
	}
	s := c.servers[i]
	mapped, err := ParseAnswer(b, s.txid)
	if err != nil || from.Addr().Is4() && !mapped.Addr().Is4() { // the reverse is what a NAT64 does
		return false
	}
	s.mapped, s.answeredAt = mapped, now
	s.sends = 0
	s.next = now.Add(askInterval)
	return true
}

// Result is what the answers of the last 90 seconds say.
func (c *Client) Result(now time.Time) Result {
	var answers []observation
	for _, s := range c.servers {
		if !s.answeredAt.IsZero() && now.Sub(s.answeredAt) < answerLife {
			answers = append(answers, observation{s.addr, s.mapped})
		}
	}
	return conclude(answers, c.local)
}

// observation is one server's answer.
type observation struct{ server, mapped netip.AddrPort }

// Result is how others see us.
type Result struct {
	Reflexive []netip.AddrPort // at most four that are not our own, what most see first
	Mapping   Mapping          // for IPv4; where nobody answered over that, for IPv6
	UDP       bool             // somebody answered
}

func conclude(answers []observation, local []netip.AddrPort) Result {
	r := Result{UDP: len(answers) > 0, Reflexive: reflexive(answers, local)}
	var v4, v6 []observation
	for _, o := range answers {
		switch {
		case !UsableEndpoint(o.mapped): // nobody sees us there: it says nothing of our NAT
		case o.mapped.Addr().Is4():
			v4 = append(v4, o)
		default:
			v6 = append(v6, o)
		}
	}
	if len(v4) > 0 {
		r.Mapping = mapping(v4, local)
	} else {
		r.Mapping = mapping(v6, local)
	}
	return r
}

// reflexive orders by the number of servers that agree, so that one that lies
// comes last, and then by address.
func reflexive(answers []observation, local []netip.AddrPort) []netip.AddrPort {
	votes := make(map[netip.AddrPort]int)
	var addrs []netip.AddrPort
	for _, o := range answers {
		if !UsableEndpoint(o.mapped) || slices.Contains(local, o.mapped) {
			continue
		}
		if votes[o.mapped]++; votes[o.mapped] == 1 {
			addrs = append(addrs, o.mapped)
		}
	}
	slices.SortFunc(addrs, func(a, b netip.AddrPort) int {
		return cmp.Or(cmp.Compare(votes[b], votes[a]), a.Compare(b))
	})
	return addrs[:min(len(addrs), maxReported)]
}
