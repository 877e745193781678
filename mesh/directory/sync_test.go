package directory

import (
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"meshd/keys"
	"meshd/mesh/record"
)

// now is inside everyone's certificates.
func testNow() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

// authority is a network's root with one signer.
type authority struct {
	t      testing.TB
	root   *keys.Root
	admin  *keys.Identity
	signer *keys.Signer
	trust  keys.Trust
	net    keys.NetworkID
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	root, err := keys.NewRoot("home", testNow())
	check(t, err)
	a := &authority{t: t, root: root, trust: keys.Trust{Root: ed25519.PublicKey(root.Public())}}
	a.net = a.trust.NetworkID()
	a.admin, a.signer = a.newSigner()
	return a
}

func (a *authority) newSigner() (*keys.Identity, *keys.Signer) {
	a.t.Helper()
	id, err := keys.NewIdentity()
	check(a.t, err)
	der, err := a.root.IssueSigner(id.Public(), testNow())
	check(a.t, err)
	s, err := keys.NewSigner(id, der)
	check(a.t, err)
	return id, s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// member issues a certificate by the authority's signer.
func (a *authority) member(name string) (*keys.Identity, []byte) {
	a.t.Helper()
	id, err := keys.NewIdentity()
	check(a.t, err)
	return id, a.issue(a.signer, id, name, keys.Roles{keys.RoleMember}, testNow())
}

// issue returns a certificate record.
func (a *authority) issue(s *keys.Signer, id *keys.Identity, name string, roles keys.Roles, at time.Time) []byte {
	a.t.Helper()
	chain, err := s.Issue(id.Public(), name, roles, at)
	check(a.t, err)
	raw, err := record.FromCertificate(chain)
	check(a.t, err)
	return raw
}

func (a *authority) node(id *keys.Identity, v record.Version, endpoint string) []byte {
	a.t.Helper()
	raw, err := record.SignNode(id, a.net, v, record.Node{
		Endpoints: []record.Endpoint{{Addr: netip.MustParseAddrPort(endpoint), Kind: record.KindHost}},
	})
	check(a.t, err)
	return raw
}

func (a *authority) directory(records ...[]byte) *Directory {
	d := New(a.trust, keys.NodeID{1})
	d.Merge(records, testNow())
	return d
}

// population makes n members with a node record each.
func (a *authority) population(n int) (ids []*keys.Identity, raws [][]byte) {
	for i := range n {
		id, cert := a.member(fmt.Sprintf("m%d", i))
		ids = append(ids, id)
		raws = append(raws, cert, a.node(id, record.Version{Epoch: 1, Counter: 1}, "192.0.2.1:51830"))
	}
	return ids, raws
}

// mesh is directories with neighbours, and messages under way.
type mesh struct {
	t          testing.TB
	rand       *rand.Rand
	loss       float64
	nodes      []*Directory
	neighbours [][]int
	now        time.Time
	queue      []envelope
	sent       int
	bytes      int
}

type envelope struct {
	from, to int
	msg      []byte
}

func nodeID(i int) keys.NodeID { return keys.NodeID{0xee, byte(i >> 8), byte(i)} }

// newMesh joins every directory to its neighbours in a ring and to k at random.
func newMesh(t testing.TB, nodes []*Directory, k int, loss float64) *mesh {
	m := &mesh{t: t, rand: rand.New(rand.NewPCG(7, uint64(len(nodes)))), loss: loss, nodes: nodes, now: testNow()}
	m.neighbours = make([][]int, len(nodes))
	link := func(a, b int) {
		if a != b {
			m.neighbours[a] = append(m.neighbours[a], b)
			m.neighbours[b] = append(m.neighbours[b], a)
		}
	}
	for i := range nodes {
		link(i, (i+1)%len(nodes))
		for range k {
			link(i, m.rand.IntN(len(nodes)))
		}
	}
	return m
}

func (m *mesh) send(from, to int, msgs [][]byte) {
	for _, msg := range msgs {
		if len(msg) > MaxMessage {
			m.t.Fatalf("a message of %d bytes", len(msg))
		}
		m.sent++
		m.bytes += len(msg)
		if m.rand.Float64() >= m.loss {
			m.queue = append(m.queue, envelope{from, to, msg})
		}
	}
}

// round delivers all that is under way, which takes 50 ms, and says whether there was anything.
func (m *mesh) round() bool {
	m.now = m.now.Add(50 * time.Millisecond)
	queue := m.queue
	m.queue = nil
	for _, e := range queue {
		replies, delta, _ := m.nodes[e.to].HandleSync(nodeID(e.from), e.msg, m.now)
		if len(replies) > maxPushes+maxAsked/maxPull {
			m.t.Fatalf("%d replies to one message", len(replies))
		}
		m.send(e.to, e.from, replies)
		m.spread(e.to, e.from, delta)
	}
	return len(queue) > 0
}

func (m *mesh) spread(node, except int, delta [][]byte) {
	if len(delta) == 0 {
		return
	}
	for _, to := range m.neighbours[node] {
		if to != except {
			m.send(node, to, Push(delta))
		}
	}
}

// compare lets every node send its digest to one neighbour, as every ten seconds, or every second where there are
// differences.
func (m *mesh) compare() {
	pause := 10 * time.Second
	for i, d := range m.nodes {
		for _, n := range m.neighbours[i] {
			if d.Behind(nodeID(n), m.now) {
				pause = time.Second
			}
		}
	}
	m.now = m.now.Add(pause)
	for i, list := range m.neighbours {
		m.send(i, list[m.rand.IntN(len(list))], [][]byte{m.nodes[i].Sum()})
	}
}

func (m *mesh) same() bool {
	first := m.nodes[0].store.sums
	for _, d := range m.nodes[1:] {
		if d.store.sums != first || len(d.store.items) != len(m.nodes[0].store.items) {
			return false
		}
	}
	return true
}

func TestOneRecordReachesAll(t *testing.T) {
	for _, c := range []struct {
		nodes     int
		loss      float64
		rounds    int // without any digest
		exchanges int // rounds of digests that repair what was lost
	}{
		{3, 0, 3, 0},
		{3, 0.3, 3, 4},
		{50, 0, 6, 0},
		{50, 0.3, 10, 4},
		{1000, 0, 8, 0},
		{1000, 0.3, 12, 4},
	} {
		t.Run(fmt.Sprintf("%d nodes, loss %v", c.nodes, c.loss), func(t *testing.T) {
			if testing.Short() && c.nodes > 50 {
				t.Skip("one goroutine, and long under the race detector; the same without it runs too")
			}
			a := newAuthority(t)
			ids, raws := a.population(2)
			nodes := make([]*Directory, c.nodes)
			for i := range nodes {
				nodes[i] = a.directory(raws...)
			}
			m := newMesh(t, nodes, 3, c.loss)
			delta, _ := nodes[0].Merge([][]byte{a.node(ids[0], record.Version{Epoch: 1, Counter: 2}, "192.0.2.9:1")}, m.now)
			m.spread(0, -1, delta)
			rounds, exchanges := 0, 0
			for !m.same() {
				if m.round() {
					rounds++
					continue
				}
				if exchanges++; exchanges > c.exchanges {
					t.Fatal("some do not know it")
				}
				m.compare()
			}
			if c.loss == 0 && rounds > c.rounds {
				t.Errorf("took %d rounds", rounds)
			}
			t.Logf("%d rounds, %d exchanges, %d messages", rounds, exchanges, m.sent)
		})
	}
}

func TestJoinerLearnsEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, and long under the race detector; the same without it runs too")
	}
	a := newAuthority(t)
	_, raws := a.population(500)
	full := a.directory(raws...)
	for loss, limit := range map[float64]time.Duration{0: 15 * time.Second, 0.3: 2 * time.Minute} {
		t.Run(fmt.Sprintf("loss %v", loss), func(t *testing.T) {
			m := newMesh(t, []*Directory{full, a.directory(raws[:2]...)}, 0, loss)
			m.neighbours = [][]int{{1}, {0}}
			m.send(0, 1, [][]byte{m.nodes[0].Sum()}) // a new session
			m.send(1, 0, [][]byte{m.nodes[1].Sum()})
			exchanges, start := 0, m.now
			for !m.same() {
				if !m.round() {
					if exchanges++; m.now.Sub(start) > limit {
						t.Fatalf("knows %d of %d records", len(m.nodes[1].store.items), len(raws))
					}
					m.compare()
				}
			}
			t.Logf("%v, %d exchanges, %d messages, %d bytes", m.now.Sub(start), exchanges, m.sent, m.bytes)
		})
	}
}

func TestBothSidesHaveNews(t *testing.T) {
	a := newAuthority(t)
	_, left := a.population(150)
	_, right := a.population(150)
	m := newMesh(t, []*Directory{a.directory(left...), a.directory(right...)}, 0, 0)
	m.neighbours = [][]int{{1}, {0}}
	m.compare()
	exchanges := 1
	for !m.same() {
		if !m.round() {
			if exchanges++; exchanges > 4 {
				t.Fatalf("%d and %d of 600", len(m.nodes[0].store.items), len(m.nodes[1].store.items))
			}
			m.compare()
		}
	}
	t.Logf("%d exchanges, %d messages, %d bytes", exchanges, m.sent, m.bytes)
}
