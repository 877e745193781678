package hotpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/keys"
	"meshd/l2"
	"meshd/peer"
	"meshd/peer/hello"
	"meshd/peer/udp"
)

// patience is how long sessions may take.
const patience = 30 * time.Second

// settling is how long the first frames may take to do what they do.
const settling = 20 * time.Millisecond

// Node is one node of a rig.
type Node struct {
	MAC    l2.MAC
	Device *Device
	Wire   *Wire
	Engine *peer.Engine
	Switch *l2.Switch

	identity *keys.Identity
}

// Rig is a node (Nodes[0]) with sessions to others.
type Rig struct {
	Nodes   []*Node
	Remotes []*peer.Remote // of Nodes[0] for the others; index 0 is empty
	Ports   []*l2.RemotePort

	known  int // members without a node
	cancel context.CancelFunc
	group  *errgroup.Group
}

// macOf is the address of node n.
func macOf(n int) l2.MAC { return l2.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

// addrOf is where node n can be reached.
func addrOf(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), 51830)
}

func newNode(n int) (*Node, error) {
	id, err := keys.NewIdentity()
	if err != nil {
		return nil, err
	}
	node := &Node{MAC: macOf(n), Device: newDevice(), Wire: newWire(addrOf(n)), identity: id}
	node.Switch = l2.NewSwitch(l2.Config{Device: node.Device, MAC: node.MAC, StormRate: 1 << 30, StormBurst: 1 << 30})
	node.Engine, err = peer.New(peer.Config{
		Identity: id, Conns: []udp.Conn{node.Wire}, Hello: hello.Config{Identity: id}, Observer: deaf{},
		Logger: slog.New(slog.DiscardHandler),
	})
	return node, err
}

// New makes a rig of so many nodes and waits until the first has a session with
// all others, over paths of which it knows that they take 1500 bytes.
func New(ctx context.Context, nodes int) (*Rig, error) {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	r := &Rig{cancel: cancel, group: group, Remotes: make([]*peer.Remote, nodes), Ports: make([]*l2.RemotePort, nodes)}
	for n := range nodes {
		node, err := newNode(n)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.Nodes = append(r.Nodes, node)
		if n > 0 {
			join(r.Nodes[0].Wire, node.Wire)
		}
	}
	for _, node := range r.Nodes {
		group.Go(func() error { return node.Engine.Run(ctx) })
		group.Go(func() error { return node.Switch.Run(ctx) })
	}
	for n := 1; n < nodes; n++ {
		if err := r.connect(n); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	if err := r.await(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.greet()
	return r, nil
}

// connect makes node n and the first known to each other.
func (r *Rig) connect(n int) error {
	hub, node := r.Nodes[0], r.Nodes[n]
	for _, side := range []struct{ at, of *Node }{{hub, node}, {node, hub}} {
		remote, err := side.at.Engine.SetRemote(peer.Spec{
			Public: side.of.identity.Public(), Class: peer.Member, Candidates: []netip.AddrPort{side.of.Wire.at},
		})
		if err != nil {
			return fmt.Errorf("make node %d known: %w", n, err)
		}
		port := side.at.Switch.Connect(side.of.Wire.at.String(), remote, l2.Allow{MAC: side.of.MAC, Bridge: true})
		remote.Attach(port)
		if side.at == hub {
			r.Remotes[n], r.Ports[n] = remote, port
			remote.Want()
		}
	}
	return nil
}

// await waits for sessions and path sizes.
func (r *Rig) await() error {
	for began, n := time.Now(), 1; n < len(r.Remotes); {
		if s := r.Remotes[n].Status(); s.Up && s.PathMTU == 1500 {
			n++
			continue
		}
		if time.Since(began) > patience {
			return fmt.Errorf("no session with node %d within %v", n, patience)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// greet sends a frame each way, so that the nodes tell each other what they can.
// That nothing more is to come of it cannot be seen.
func (r *Rig) greet() {
	hub := r.Nodes[0]
	for _, node := range r.Nodes[1:] {
		hub.Device.send([]l2.Frame{Datagram(node.MAC, hub.MAC, 1, 18)}, 1)
		node.Device.send([]l2.Frame{Datagram(hub.MAC, node.MAC, 1, 18)}, 1)
	}
	time.Sleep(settling)
}

// Out lets the first node's host send a batch so many times, and nothing arrive.
func (r *Rig) Out(frames []l2.Frame, times int) { r.drive(dropped, frames, times) }

// Through lets it send them to the other nodes' hosts.
func (r *Rig) Through(frames []l2.Frame, times int) { r.drive(lent, frames, times) }

func (r *Rig) drive(mode wireMode, frames []l2.Frame, times int) {
	w := r.Nodes[0].Wire
	w.mode.Store(uint32(mode))
	r.Nodes[0].Device.send(frames, times)
	w.mode.Store(uint32(queued))
}

// OutCPU is Out, and the CPU time of the goroutine that does it.
func (r *Rig) OutCPU(frames []l2.Frame, times int) time.Duration {
	d := r.Nodes[0].Device
	d.meter.on = true
	r.Out(frames, times)
	d.meter.on = false
	return d.meter.used
}

// InCPU lets nodes send one batch each to the first, in turn frame by frame, and
// returns the CPU time that the first spends on taking them in, and how many
// datagrams they were.
func (r *Rig) InCPU(batches map[int][]l2.Frame) (used time.Duration, datagrams int) {
	var all []udp.Packet
	var turns [][]udp.Packet
	for _, n := range slices.Sorted(maps.Keys(batches)) {
		node := r.Nodes[n]
		node.Wire.mode.Store(uint32(kept))
		for _, f := range batches[n] {
			node.Device.send([]l2.Frame{f}, 1)
		}
		node.Wire.mode.Store(uint32(queued))
		turns = append(turns, node.Wire.record)
		node.Wire.record = nil
	}
	for turn := 0; len(turns) > 0; turn++ {
		left := turns[:0]
		for _, packets := range turns {
			if turn < len(packets) {
				all = append(all, packets[turn])
				left = append(left, packets)
			}
		}
		turns = left
	}
	w := r.Nodes[0].Wire
	w.meter.on = true
	w.replay <- all
	<-w.played
	w.meter.on = false
	return w.meter.used, len(all)
}

// Know makes members known to the first node that it has no session with.
func (r *Rig) Know(members int) error {
	hub := r.Nodes[0]
	for range members {
		n := len(r.Nodes) + r.known
		r.known++
		id, err := keys.NewIdentity()
		if err != nil {
			return err
		}
		remote, err := hub.Engine.SetRemote(peer.Spec{Public: id.Public(), Class: peer.Member})
		if err != nil {
			return fmt.Errorf("make member %d known: %w", n, err)
		}
		port := hub.Switch.Connect(addrOf(n).String(), remote, l2.Allow{MAC: macOf(n)})
		remote.Attach(port)
	}
	return nil
}

// Learn tells the first node of a station behind node n.
func (r *Rig) Learn(n int, station l2.MAC) {
	port := r.Ports[n]
	port.Receive(Datagram(r.Nodes[0].MAC, station, 9, 18).Data, 0)
	port.Flush()
}

// Stations is how many the first node knows.
func (r *Rig) Stations() int { return len(r.Nodes[0].Switch.Hosts()) }

// Close ends the nodes.
func (r *Rig) Close() error {
	r.cancel()
	return r.group.Wait()
}

// deaf is an observer without interest.
type deaf struct{}

// Met is peer.Observer's.
func (deaf) Met(*hello.Result, netip.AddrPort) {}

// Control is peer.Observer's.
func (deaf) Control(*peer.Remote, []byte) {}

// STUN is peer.Observer's.
func (deaf) STUN(netip.AddrPort, []byte) {}

// Changed is peer.Observer's.
func (deaf) Changed(*peer.Remote) {}
