package directory

import (
	"errors"
	"fmt"

	"golang.org/x/time/rate"

	"meshd/keys"
	"meshd/mesh/record"
)

var (
	errNoIdentity = errors.New("no identity to sign with")
	errExhausted  = errors.New("no version is left above our own record")
)

// own is what we say ourselves.
type own struct {
	identity *keys.Identity
	epoch    uint32
	node     *record.Node   // what we want to say, once SetNode has been called
	said     record.Hash    // the record by which we say it
	version  record.Version // and its version
	// surpassed says that a record of ours which we do not know is as new as said.
	surpassed  bool
	saidGroups record.Hash   // the record by which we say what we listen to
	jumps      *rate.Limiter // two nodes with one key must not outbid each other without end
}

// Own gives the directory the identity to sign our own records with, and this start's epoch: a counter of starts that the
// caller has persisted before, so that no version is ever used twice.
func (d *Directory) Own(id *keys.Identity, epoch uint32) {
	d.own.identity = id
	d.own.epoch = max(d.own.epoch, epoch)
}

// Epoch is the epoch in use; it grows when our own record comes back newer than ours. The caller persists it.
func (d *Directory) Epoch() uint32 { return d.own.epoch }

// SetNode says what we are. It signs only when that differs from what we said last, and then returns the record to pass on.
func (d *Directory) SetNode(body record.Node) ([]byte, error) {
	if d.own.identity == nil {
		return nil, fmt.Errorf("say what we are: %w", errNoIdentity)
	}
	body = body.Normal()
	d.own.node = &body
	if kept := d.store.items[d.ownKey(record.TypeNode)]; kept != nil && kept.rec.Node.Equal(body) {
		d.stand(kept.rec)
		return nil, nil
	}
	it, err := d.signNode()
	if err != nil {
		return nil, err
	}
	return it.rec.Raw(), d.keepOwn(it)
}

// stand makes a record the one by which we say what we are.
func (d *Directory) stand(r *record.Record) {
	d.own.said, d.own.version, d.own.surpassed = r.Hash, r.Version, false
}

// keepOwn puts what we have just signed into our own view.
func (d *Directory) keepOwn(it *item) error {
	var res MergeResult
	m := d.merging(&res)
	m.keep(it)
	m.updateView()
	if len(m.delta) == 0 {
		return fmt.Errorf("keep our own record: %w", errExhausted)
	}
	return nil
}

// SetNetwork says what the network is, as an admin. It returns nil when that is what everyone believes already. Whether we
// are an admin, the others judge.
func (d *Directory) SetNetwork(body record.Network) ([]byte, error) {
	if d.own.identity == nil {
		return nil, fmt.Errorf("say what the network is: %w", errNoIdentity)
	}
	if d.network != nil && d.network.Equal(body) {
		return nil, nil
	}
	// Above what any admin has said, for the newest counts.
	var newest record.Version
	for key, it := range d.store.items {
		if key.Type == record.TypeNetwork && it.rec.Version.Compare(newest) > 0 {
			newest = it.rec.Version
		}
	}
	v, ok := newest.Next()
	if !ok {
		return nil, fmt.Errorf("say what the network is: %w", errExhausted)
	}
	raw, err := record.SignNetwork(d.own.identity, d.trust.NetworkID(), v, body)
	if err != nil {
		return nil, fmt.Errorf("say what the network is: %w", err)
	}
	r, err := record.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("say what the network is: %w", err)
	}
	return raw, d.keepOwn(&item{rec: r})
}

func (d *Directory) ownKey(t record.Type) record.Key { return record.Key{Type: t, Owner: d.self} }

// signNode signs own.node with the next version.
func (d *Directory) signNode() (*item, error) {
	v, err := d.nextVersion()
	if err != nil {
		return nil, fmt.Errorf("say what we are: %w", err)
	}
	raw, err := record.SignNode(d.own.identity, d.trust.NetworkID(), v, *d.own.node)
	if err != nil {
		return nil, fmt.Errorf("say what we are: %w", err)
	}
	r, err := record.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("say what we are: %w", err)
	}
	d.stand(r)
	return &item{rec: r}, nil
}

// nextVersion is above whatever we have said, in this start or before. When our own record is known with an epoch that is
// not behind this start's, the epoch moves above it.
func (d *Directory) nextVersion() (record.Version, error) {
	next, ok := record.Version{Epoch: d.own.epoch, Counter: 1}, true
	if d.own.version.Epoch == d.own.epoch && d.own.version.Counter > 0 {
		next, ok = d.own.version.Next()
	}
	if kept := d.store.items[d.ownKey(record.TypeNode)]; kept != nil && ok && next.Compare(kept.rec.Version) <= 0 {
		next, ok = kept.rec.Version.NextEpoch()
		next.Counter = 1
	}
	if !ok {
		return next, errExhausted
	}
	d.own.epoch = next.Epoch
	return next, nil
}

// ownReturned looks at a record that came from others: is it ours, and one that we do not know to have signed?
func (m *merging) ownReturned(r *record.Record) {
	if r.Key != m.ownKey(record.TypeNode) || r.Hash == m.own.said {
		return
	}
	if m.own.said == (record.Hash{}) { // nothing said yet in this start: what we said before is no surprise, unless it is ahead
		if m.own.identity != nil && r.Version.Epoch >= m.own.epoch {
			m.alarm(StateLoss, r)
		}
		return
	}
	if r.Version.Compare(m.own.version) >= 0 {
		m.own.surpassed = true
		m.alarm(StateLoss, r)
	}
}

// republish signs our record anew, above the one that has come back.
func (m *merging) republish() {
	if !m.own.surpassed || m.own.node == nil || m.own.identity == nil || !m.own.jumps.AllowN(m.Directory.now, 1) {
		return
	}
	it, err := m.signNode()
	if err != nil { // the versions are exhausted: nothing is left to say
		return
	}
	m.res.Own = true
	m.keep(it)
}
