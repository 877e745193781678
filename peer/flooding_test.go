package peer_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/keys"
	"meshd/peer"
	spread "meshd/peer/flood"
	"meshd/peer/udp/udptest"
)

// crowd is a mesh of engines that know each other, as mesh would have told them.
type crowd struct {
	t     *testing.T
	net   *udptest.Internet
	nodes []*node
	sinks [][]*originSink // by node and origin
}

var crowdNetwork = keys.NetworkID{9}

// originSink is where one node gets the frames of one origin.
type originSink struct {
	deaf   atomic.Bool // frames for some are not for this remote
	mu     sync.Mutex
	frames [][]byte
}

func (s *originSink) Receive(frame []byte, csumStart int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if csumStart != 0 {
		panic("a copy has its checksums")
	}
	s.frames = append(s.frames, bytes.Clone(frame))
}
func (s *originSink) Flush() {}

// forSome is what the first byte of a frame says that is not for the deaf.
const forSome = 0x5e

func (s *originSink) Wants(frame []byte) bool { return !s.deaf.Load() || frame[0] != forSome }

func (s *originSink) take() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames := s.frames
	s.frames = nil
	return frames
}

func newCrowd(t *testing.T, size int) *crowd {
	c := &crowd{t: t, net: udptest.NewInternet(1)}
	c.net.LogOnFailure(t)
	in := newNetwork(t)
	for i := range size {
		n := start(t, c.net, in, fmt.Sprint("n", i), fmt.Sprintf("198.18.0.%d", i+1))
		n.host.SetLink(udptest.Link{Delay: 5 * time.Millisecond}, udptest.Link{Delay: 5 * time.Millisecond})
		n.engine.StartFlooding(crowdNetwork, 1)
		c.nodes = append(c.nodes, n)
	}
	for i, a := range c.nodes {
		c.sinks = append(c.sinks, make([]*originSink, size))
		for j, b := range c.nodes {
			if i != j {
				c.introduce(i, j, a, b)
			}
		}
	}
	time.Sleep(3 * time.Second) // sessions with neighbours
	return c
}

func (c *crowd) introduce(i, j int, a, b *node) {
	r, err := a.engine.SetRemote(peer.Spec{Public: b.identity.Public(), Class: peer.Member, Candidates: []netip.AddrPort{b.at}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.sinks[i][j] = &originSink{}
	r.Attach(c.sinks[i][j])
	r.TakeCopies(true, 1)
	size := len(c.nodes)
	switch (j - i + size) % size {
	case 1, 5, 7, size - 1, size - 5, size - 7:
		r.Keep(true)
	}
}

// broadcast sends a frame from a node to all.
func (c *crowd) broadcast(from int, frame []byte) {
	all := c.nodes[from].engine.Everyone()
	if !all.Send(frame, 0) {
		c.t.Fatal("a frame was refused")
	}
	all.Flush()
}

// got holds that all but some have a frame of an origin, and nothing else, and have it as
// if from there.
func (c *crowd) got(origin int, frame []byte, but ...int) {
	c.t.Helper()
	for _, i := range c.missing(origin, frame, but...) {
		c.t.Errorf("%d has no frame of the origin", i)
	}
}

// missing lists who has not got a frame. Nobody may have it twice, or another.
func (c *crowd) missing(origin int, frame []byte, but ...int) (list []int) {
	c.t.Helper()
	for i := range c.nodes {
		if i == origin || slices.Contains(but, i) {
			continue
		}
		for j, s := range c.sinks[i] {
			if s == nil {
				continue
			}
			frames := s.take()
			switch {
			case j != origin && len(frames) > 0:
				c.t.Errorf("%d has %d frames of %d", i, len(frames), j)
			case j == origin && len(frames) == 0:
				list = append(list, i)
			case j == origin && (len(frames) != 1 || !bytes.Equal(frames[0], frame)):
				c.t.Errorf("%d has %d frames of the origin", i, len(frames))
			}
		}
	}
	return list
}

// sent is how many copies all have sent on their way and for repair.
func (c *crowd) sent() (list []uint64) {
	for _, n := range c.nodes {
		st := n.engine.FloodStats()
		list = append(list, st.Sent+st.Answered)
	}
	return list
}

func TestFloodReachesEachOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 24)
		for round, size := range []int{60, 1514, 9014, 60} {
			before := c.sent()
			f := frame(size, round+1)
			origin := round * 5
			c.broadcast(origin, f)
			time.Sleep(time.Second)
			c.got(origin, f)
			for i, now := range c.sent() {
				if now-before[i] > spread.Fanout {
					t.Errorf("%d sent %d copies", i, now-before[i])
				}
			}
		}
		for round := range 20 { // who passes copies on changes; sessions come to be with each
			c.broadcast(15, frame(100, 20+round))
			time.Sleep(300 * time.Millisecond)
			c.got(15, frame(100, 20+round))
		}
		// Now that they are there it is two steps, of 10 ms each.
		f := frame(100, 9)
		c.broadcast(15, f)
		time.Sleep(21 * time.Millisecond)
		synctest.Wait()
		c.got(15, f)
		up := 0
		for _, r := range c.nodes[15].engine.Remotes() {
			if r.Up() {
				up++
			}
		}
		t.Logf("the last origin has %d sessions with %d members", up, len(c.nodes)-1)
	})
}

// What is not for a member goes by others, which miss nothing for it.
func TestFloodForSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 24)
		deaf := []int{1, 2, 4, 7, 8, 11, 12, 14, 15, 18, 20, 23}
		for _, sinks := range c.sinks {
			for _, i := range deaf {
				if sinks[i] != nil {
					sinks[i].deaf.Store(true)
				}
			}
		}
		for round := range 10 {
			f := frame(60, round+1)
			f[0] = forSome
			before := c.sent()
			c.broadcast(3, f)
			time.Sleep(time.Second)
			c.got(3, f, deaf...)
			for _, i := range deaf {
				if n := len(c.sinks[i][3].take()); n > 0 {
					t.Errorf("%d got %d frames that are not for it", i, n)
				}
			}
			for i, now := range c.sent() {
				if now-before[i] > spread.Fanout {
					t.Errorf("%d sent %d copies", i, now-before[i])
				}
			}
		}
		f := frame(60, 20)
		c.broadcast(3, f)
		time.Sleep(time.Second)
		c.got(3, f)
	})
}

// Members that die in the middle leave no survivor without the frame for a second.
func TestFloodWithDeaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 24)
		c.broadcast(0, frame(60, 1))
		time.Sleep(2 * time.Second)
		c.got(0, frame(60, 1))
		c.broadcast(0, frame(60, 2))
		time.Sleep(11 * time.Millisecond) // the children have it, who have not sent it yet
		dead := []int{3, 11, 19}
		for _, i := range dead {
			c.nodes[i].host.SetAddr()
		}
		time.Sleep(time.Second)
		c.got(0, frame(60, 2), dead...)
		c.broadcast(0, frame(60, 3)) // they are dead, which nobody knows yet
		time.Sleep(time.Second)
		c.got(0, frame(60, 3), dead...)
	})
}

// A frame that its origin did not sign, or in another network, or of another life of it, is
// delivered to nobody, whoever brings it.
func TestFloodForgeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 12)
		c.broadcast(1, frame(60, 1))
		time.Sleep(time.Second)
		c.got(1, frame(60, 1))
		origin, bad := c.nodes[1], c.nodes[2]
		forge := func(network keys.NetworkID, key ed25519.PrivateKey, epoch uint32, number uint64, spoil bool) []byte {
			copied := spread.Copy{
				Name: spread.Name{Origin: origin.identity.ID(), Epoch: epoch, Number: number},
				Part: spread.Part{Last: 1<<64 - 1}, Frame: frame(60, 7),
			}
			copied.Signature = [64]byte(ed25519.Sign(key, copied.AppendSigned(nil, network)))
			if spoil {
				copied.Frame = frame(60, 8)
			}
			return copied.Append(nil)
		}
		// What is forged ahead of a frame does not keep the frame out.
		for _, to := range c.nodes {
			if to != bad {
				peer.SendCopy(bad.remote(to), forge(crowdNetwork, origin.identity.Sign, 1, 2, true))
			}
		}
		time.Sleep(time.Second)
		c.broadcast(1, frame(60, 2)) // its number is 2
		time.Sleep(time.Second)
		c.got(1, frame(60, 2))
		for name, body := range map[string][]byte{
			"signed by another":    forge(crowdNetwork, bad.identity.Sign, 1, 50, false),
			"of another network":   forge(keys.NetworkID{8}, origin.identity.Sign, 1, 51, false),
			"altered":              forge(crowdNetwork, origin.identity.Sign, 1, 52, true),
			"of a life before":     forge(crowdNetwork, origin.identity.Sign, 0, 53, false),
			"with a number before": forge(crowdNetwork, origin.identity.Sign, 1, 1, false),
			"too short":            forge(crowdNetwork, origin.identity.Sign, 1, 54, false)[:100],
		} {
			for _, to := range c.nodes {
				if to != bad {
					peer.SendCopy(bad.remote(to), body)
				}
			}
			time.Sleep(time.Second)
			for i := range c.nodes {
				if frames := c.sinks[i][1]; frames != nil && len(frames.take()) > 0 {
					t.Errorf("%s: %d has it", name, i)
				}
			}
		}
		st := c.nodes[5].engine.FloodStats()
		if st.Verdicts[spread.Forged] != 4 || st.Verdicts[spread.Stale] != 1 {
			t.Errorf("%+v", st)
		}
		for _, to := range c.nodes { // what is right passes, also by hands that forged
			if to != bad {
				peer.SendCopy(bad.remote(to), forge(crowdNetwork, origin.identity.Sign, 1, 55, false))
			}
		}
		time.Sleep(time.Second)
		c.got(1, frame(60, 7), 2)
	})
}

// Who is no member any more neither gets copies nor is believed.
func TestFloodAfterForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 12)
		out := c.nodes[4]
		for _, n := range c.nodes {
			if n != out {
				n.engine.Forget(out.identity.ID())
			}
		}
		c.broadcast(4, frame(60, 1))
		c.broadcast(5, frame(60, 2))
		time.Sleep(2 * time.Second)
		c.got(5, frame(60, 2), 4)
		if got := c.sinks[4][5].take(); len(got) > 0 {
			t.Errorf("who was forgotten has %d frames", len(got))
		}
	})
}

// Members that take copies and pass none on are gone around.
func TestFloodAroundBlackHoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 24)
		holes := []int{2, 9, 16}
		for _, i := range holes {
			c.nodes[i].engine.StartFlooding(keys.NetworkID{8}, 1) // to it, everybody else forges
		}
		for round := range 10 {
			c.broadcast(0, frame(60, round+1))
			time.Sleep(time.Second)
			c.got(0, frame(60, round+1), holes...)
		}
	})
}

// Lost copies are made good.
func TestFloodUnderLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 24)
		for round := range 5 {
			c.broadcast(round, frame(60, round+1))
			time.Sleep(time.Second)
			c.got(round, frame(60, round+1))
		}
		lossy := udptest.Link{Delay: 5 * time.Millisecond, Loss: 0.03} // on either side: 6 % on a path
		for _, n := range c.nodes {
			n.host.SetLink(lossy, lossy)
		}
		asked, missing := uint64(0), 0
		for round := range 20 {
			c.broadcast(round, frame(60, round+10))
			time.Sleep(1500 * time.Millisecond)
			missing += len(c.missing(round, frame(60, round+10)))
		}
		for _, n := range c.nodes {
			asked += n.engine.FloodStats().Asked
		}
		if asked == 0 {
			t.Error("nothing was lost")
		}
		t.Logf("of %d copies %d were asked for and %d never came", 20*23, asked, missing)
		if missing > 5 { // all that tell of a frame may be lost: of 110,000 copies 9 did not come
			t.Errorf("%d copies never came", missing)
		}
	})
}
