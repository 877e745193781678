package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"meshd/keys"
	"meshd/mesh/api"
	"meshd/mesh/record"
	"meshd/peer"
)

// stateShare is what this node does for others, and what it did this month.
const stateShare = "share"

// shareEvery is how often the count is written. What a crash loses is less than
// what is carried in that time.
const shareEvery = time.Minute

// share is what this node does for others.
type share struct {
	terms   shareTerms
	before  uint64 // bytes that the engine had counted when terms.Used was last brought up to date
	saved   time.Time
	unsaved bool
	rates   map[[2]keys.NodeID]rate
}

// shareTerms is what of it is kept on disk.
type shareTerms struct {
	Off    bool   `cbor:"1,keyasint"`
	Rate   uint64 `cbor:"2,keyasint"` // bytes per second in all; 0: no limit
	Volume uint64 `cbor:"3,keyasint"` // bytes per month; 0: no limit
	Month  string `cbor:"4,keyasint"` // that Used is of, as 2006-01
	Used   uint64 `cbor:"5,keyasint"` // bytes carried
}

// spent says that the month's volume is used up.
func (t *shareTerms) spent() bool { return t.Volume > 0 && t.Used >= t.Volume }

// change takes over what is asked for.
func (t *shareTerms) change(c api.ShareChange) {
	if c.On != nil {
		t.Off = !*c.On
	}
	if c.RateBPS != nil {
		t.Rate = (*c.RateBPS + 7) / 8
	}
	if c.VolumeBytes != nil {
		t.Volume = *c.VolumeBytes
	}
}

// loadShare reads what was agreed before, and the flags, which win.
func (n *Node) loadShare() error {
	s := &n.state.share
	s.rates = map[[2]keys.NodeID]rate{}
	raw, err := n.store.Load(stateShare)
	if err == nil {
		err = cbor.Unmarshal(raw, &s.terms)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read %s: %w", stateShare, err)
	}
	s.terms.change(n.cfg.Share)
	return nil
}

// applyShare tells the engine.
func (n *Node) applyShare() {
	t := &n.state.share.terms
	n.engine.SetSharing(peer.Sharing{On: !t.Off, Spent: t.spent(), Rate: t.Rate})
}

// capabilities are what this node's record says that it does for others.
func (n *Node) capabilities() record.Capabilities {
	own := record.CapCopies | n.hostsCapability() | n.routingCapabilities()
	if t := &n.state.share.terms; t.Off || t.spent() {
		return own
	}
	return record.CapRelay | own
}

// measureShare counts what was carried, begins a new month and writes it down.
func (n *Node) measureShare(now time.Time) {
	s := &n.state.share
	list, total := n.engine.Relaying()
	old := s.rates
	s.rates = make(map[[2]keys.NodeID]rate, len(list))
	for _, c := range list {
		key := [2]keys.NodeID{c.Asker, c.Other}
		r := old[key]
		r.update(now, c.Bytes)
		s.rates[key] = r
	}
	t, was := &s.terms, s.terms.spent()
	if month := now.UTC().Format("2006-01"); month != t.Month {
		t.Month, t.Used = month, 0
	}
	if grown := total - s.before; grown > 0 {
		t.Used += grown
		s.before, s.unsaved = total, true
	}
	if t.spent() != was {
		n.applyShare()
		n.wake() // our record says so
	}
	if s.unsaved && (now.Sub(s.saved) >= shareEvery || t.spent() != was) {
		n.saveShare(now)
	}
}

func (n *Node) saveShare(now time.Time) {
	s := &n.state.share
	s.saved, s.unsaved = now, false
	raw, err := cbor.Marshal(s.terms)
	if err == nil {
		err = n.store.Save(stateShare, raw)
	}
	if err != nil {
		n.log.Warn("write what was relayed this month", "err", err)
	}
}

// shareStatus is `meshd share`.
func (n *Node) shareStatus(now time.Time) *api.Share {
	n.measureShare(now)
	t := &n.state.share.terms
	out := &api.Share{
		On: !t.Off, RateBPS: 8 * t.Rate, VolumeBytes: t.Volume, Month: t.Month, UsedBytes: t.Used,
		For: n.relaying(), By: []api.SharedBy{},
	}
	for _, p := range n.status(now).Peers {
		if p.State == api.StateRelayed {
			out.By = append(out.By, api.SharedBy{Peer: p.Name, Via: p.Via, RateBPS: p.TxBPS + p.RxBPS})
		}
	}
	slices.SortFunc(out.By, func(a, b api.SharedBy) int { return strings.Compare(a.Peer, b.Peer) })
	return out
}

// Share implements api.Node.
func (s service) Share(ctx context.Context, change api.ShareChange) (*api.Share, error) {
	var out *api.Share
	err := s.n.do(ctx, func() {
		now := time.Now()
		if change != (api.ShareChange{}) {
			s.n.measureShare(now)
			s.n.state.share.terms.change(change)
			s.n.applyShare()
			s.n.saveShare(now)
			s.n.wake() // our record says so
		}
		out = s.n.shareStatus(now)
	})
	return out, err
}
