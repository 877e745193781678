package mesh

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"meshd/keys"
	"meshd/l2/bridge"
	"meshd/mesh/api"
	"meshd/mesh/underlay"
)

const (
	// bridgeTrial is how long members have to answer after a bridge was made.
	bridgeTrial = 30 * time.Second
	// bridgeGrace is how long what was under way before may still be answered.
	bridgeGrace = time.Second
	// bridgeRetry is the pause after a bridge could not be made, and the first after one
	// was undone, which doubles up to bridgeRetryMost.
	bridgeRetry     = 10 * time.Second
	bridgeAgain     = time.Minute
	bridgeRetryMost = time.Hour
	// bridgeLook is how often a bridge is looked at without a cause.
	bridgeLook = 10 * time.Second
)

// bridged is a bridge with our TAP in it.
type bridged interface {
	Name() string
	Sync() []bridge.Problem
	Link() bool
	SetAddresses(addrs []netip.Prefix) error
	Undo() error
}

// bridgeHost is what a Host may offer.
type bridgeHost interface {
	CheckBridge(name string) error
	OpenBridge(cfg bridge.Config, record []byte) (bridged, error)
}

// CheckBridge says what would keep OpenBridge from working.
func (machine) CheckBridge(name string) error { return bridge.Check(name) }

// OpenBridge puts the TAP into a bridge of this machine.
func (machine) OpenBridge(cfg bridge.Config, record []byte) (bridged, error) {
	b, err := bridge.Open(cfg, record)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// bridging is what the control goroutine does about --bridge.
type bridging struct {
	on      bridged // nil: the TAP is in no bridge
	dirty   bool    // the host has changed
	looked  time.Time
	opened  time.Time
	proved  bool          // a member has answered since
	retry   time.Time     // when to try again
	pause   time.Duration // after the next trial that fails
	undone  bool          // because nobody answered
	undoing string        // why it is to be put back, which has failed so far
	lacking bool          // the role
	carrier bool

	problems []bridge.Problem
}

// link reports whether there is a LAN behind the TAP.
func (b *bridging) link() bool { return b.on != nil && b.carrier }

// checkBridge says what is wrong with --bridge, before anything is done.
func (n *Node) checkBridge() error {
	host, ok := n.cfg.Host.(bridgeHost)
	switch {
	case n.cfg.Bridge == "":
		return nil
	case n.cfg.NoTAP:
		return errors.New("bridge: without a TAP there is nothing to put into a bridge: leave out --no-tap")
	case !ok:
		return errors.New("bridge: this host cannot")
	}
	if record, err := n.bridgeRecord(); err != nil || len(record) > 0 {
		return err // an earlier process has bridged it
	}
	return host.CheckBridge(n.cfg.Bridge)
}

func (n *Node) bridgeRecord() ([]byte, error) {
	record, err := n.store.Load(stateBridge)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return record, err
}

// displayOf is a member's name, or its id.
func (n *Node) displayOf(id keys.NodeID) string {
	if d := n.state.dir.Member(id); d != nil {
		return d.Display
	}
	return id.String()
}

// undoEarlier puts back what an earlier process has bridged and this one is not to.
func (n *Node) undoEarlier() error {
	record, err := n.bridgeRecord()
	if err != nil || len(record) == 0 || n.cfg.Bridge != "" {
		return err
	}
	if err := bridge.Undo(record); err != nil {
		return err
	}
	return n.store.Save(stateBridge, nil)
}

// reconcileBridge has the TAP in its bridge, if this node may do so.
func (n *Node) reconcileBridge(now time.Time) {
	s := n.state.segment
	if s == nil || s.lan == nil {
		return
	}
	b := &s.bridging
	own := n.state.dir.Member(n.self)
	b.lacking = own == nil || !own.Certificate.Roles.Has("bridge")
	switch {
	case b.undoing != "":
		n.unbridge(b.undoing, now)
	case b.lacking && b.on != nil:
		n.unbridge("this node has lost the role", now)
	case b.lacking || b.on == nil && now.Before(b.retry):
		return
	case b.on == nil && b.undone && len(n.state.up) == 0:
		return // first somebody is to answer without it
	case b.on == nil:
		n.bridge(now)
	case b.dirty || now.Sub(b.looked) >= bridgeLook:
		b.dirty, b.looked = false, now
		b.problems = b.on.Sync()
		b.carrier = b.on.Link()
	}
	n.proveBridge(now)
}

// bridge puts the TAP into the bridge, and the addresses onto it.
func (n *Node) bridge(now time.Time) {
	s := n.state.segment
	b := &s.bridging
	record, err := n.bridgeRecord()
	if err == nil {
		s.lan.expect()
		b.on, err = n.cfg.Host.(bridgeHost).OpenBridge(bridge.Config{
			Name: n.cfg.Bridge, TAP: n.cfg.TAP, MAC: s.mac, Skip: underlay.Mark(n.cfg.TAP),
			Note: func(r []byte) error { return n.store.Save(stateBridge, r) },
		}, record)
	}
	if err != nil {
		b.on, b.retry = nil, now.Add(bridgeRetry)
		b.problems = []bridge.Problem{problemOf(err)}
		n.event(Warning, fmt.Sprintf("not bridged: %v", err))
		return
	}
	b.opened, b.looked, b.proved, b.undone, b.problems = time.Now(), now, false, false, nil // it has taken a while
	b.carrier = b.on.Link()
	s.lan.set(b.carrier, s.lan.fit.Load()) // now: nothing passes before the port has listened
	if err := s.moveAddresses(); err != nil {
		n.log.Warn("move addresses to the bridge", "err", err)
	}
	n.state.routing.old = nil // the bridge has not been told
	n.log.Info("bridged", "bridge", b.on.Name())
	s.hostChanged(n)
	n.state.routing.hostChanged() // routes lead into the bridge now
}

func problemOf(err error) bridge.Problem {
	p := bridge.Problem{Code: "bridge", Text: err.Error(), Remedy: "see meshd up --help, --bridge"}
	if e := (*bridge.Error)(nil); errors.As(err, &e) && e.Remedy != "" {
		p.Remedy = e.Remedy
	}
	return p
}

// moveAddresses puts the member's addresses where they belong: on the bridge, or the TAP.
func (s *segment) moveAddresses() error {
	var err error
	if host, ok := s.device.(hostSide); ok && s.bridging.on != nil {
		err = host.SetAddresses(nil)
	}
	return errors.Join(err, s.setAddresses(s.addresses))
}

// unbridge puts all back. When that fails it is tried again.
func (n *Node) unbridge(why string, now time.Time) {
	s := n.state.segment
	b := &s.bridging
	if now.Before(b.retry) {
		return
	}
	if err := b.on.Undo(); err != nil {
		b.undoing, b.retry = why, now.Add(bridgeRetry)
		b.problems = []bridge.Problem{problemOf(err)}
		n.log.Error("undo the bridge", "err", err)
		return
	}
	n.log.Warn("the bridge was undone", "why", why)
	if why == noAnswer {
		b.pause = min(max(2*b.pause, bridgeAgain), bridgeRetryMost)
		b.retry, b.undone = now.Add(b.pause), true
	}
	b.on, b.problems, b.carrier, b.undoing = nil, nil, false, ""
	if err := s.moveAddresses(); err != nil {
		n.log.Warn("move addresses back", "err", err)
	}
	n.state.routing.old = nil
	s.hostChanged(n)
	n.state.routing.hostChanged() // routes lead into the TAP again
}

// noAnswer is why a trial has failed.
const noAnswer = "no member has answered since"

// proveBridge undoes the change when it has cost this host its members: with the
// interface that the mesh goes by in a bridge that does not work, nobody could come by
// and repair it.
func (n *Node) proveBridge(now time.Time) {
	b := &n.state.segment.bridging
	if b.on == nil || b.proved || b.undoing != "" {
		return
	}
	if len(n.state.dir.Members()) < 2 { // there is nobody to ask
		b.proved = true
		return
	}
	for _, m := range n.state.members {
		if st := m.remote.Status(); st.Up && st.LastHeard.After(b.opened.Add(bridgeGrace)) {
			b.proved, b.pause = true, 0
			return
		}
	}
	if now.Sub(b.opened) < bridgeTrial {
		return
	}
	n.unbridge(noAnswer, now)
}

// endBridge undoes the bridge at the end, unless the TAP stays.
func (s *segment) endBridge(keep bool) error {
	if s.bridging.on == nil || keep {
		return nil
	}
	return s.bridging.on.Undo()
}

// bridgeHealth says what is not as it should be.
func (s *segment) bridgeHealth(name string) (list []api.Health) {
	if s == nil || s.lan == nil {
		return nil
	}
	b := &s.bridging
	add := func(code, text, remedy string) {
		list = append(list, api.Health{Code: code, Severity: api.SeverityWarning, Text: text, Remedy: remedy})
	}
	if b.lacking {
		add("bridge-role", "this node may not bridge: its certificate has no role bridge, and others would not take the frames of "+name,
			"on an admin's node: meshd role NAME bridge")
	}
	if b.undone {
		add("bridge-undone", fmt.Sprintf("%s is not bridged: no member answered within %v after it was, so it was put back", name, bridgeTrial),
			"see whether the LAN behind "+name+" reaches the internet; it is tried again once a member answers")
	}
	for _, p := range b.problems {
		add(p.Code, p.Text, p.Remedy)
	}
	if b.on != nil && !b.carrier && len(b.problems) == 0 {
		add("bridge-no-link", "the bridge "+b.on.Name()+" has no port with a link besides the TAP", "plug in the cable, or put the LAN's interface into the bridge")
	}
	return list
}

// describeBridge is the port for status; nil: --bridge was not given.
func (s *segment) describeBridge(nameOf func(keys.NodeID) string) *api.Bridge {
	if s == nil || s.lan == nil {
		return nil
	}
	_, _, port := s.lan.snapshot()
	name := s.lanSegment()
	d := &api.Bridge{Beside: []string{}, State: port.state.String(), Segment: hex.EncodeToString(name[:])}
	if s.bridging.on != nil {
		d.Name = s.bridging.on.Name()
	}
	if id := keys.NodeID(port.forwarder); id != (keys.NodeID{}) {
		d.Forwarder = nameOf(id)
	}
	for _, id := range port.beside {
		d.Beside = append(d.Beside, nameOf(keys.NodeID(id)))
	}
	return d
}
