package hotpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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
		port := side.at.Switch.Connect(side.of.Wire.at.String(), remote, l2.Allow{MAC: side.of.MAC})
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
