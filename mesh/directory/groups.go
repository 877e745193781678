package directory

import (
	"fmt"

	"meshd/mesh/record"
)

// SetGroups says which multicast groups our hosts listen to. Like SetNode it signs only when that differs from what we
// said last in this start, or when a record has come back that we do not know; and then it returns the record to pass on.
func (d *Directory) SetGroups(body record.Groups) ([]byte, error) {
	if d.own.identity == nil {
		return nil, fmt.Errorf("say what we listen to: %w", errNoIdentity)
	}
	kept := d.store.items[d.ownKey(record.TypeGroups)]
	if kept != nil && kept.rec.Hash == d.own.saidGroups && kept.rec.Groups.Equal(body) {
		return nil, nil
	}
	v := record.Version{Epoch: d.own.epoch, Counter: 1}
	if kept != nil && v.Compare(kept.rec.Version) <= 0 {
		next, ok := kept.rec.Version.Next()
		if kept.rec.Hash != d.own.saidGroups { // not ours of this start: from now on its epoch is behind us
			next, ok = kept.rec.Version.NextEpoch()
			next.Counter = 1
		}
		if !ok {
			return nil, fmt.Errorf("say what we listen to: %w", errExhausted)
		}
		v = next
	}
	raw, err := record.SignGroups(d.own.identity, d.trust.NetworkID(), v, body)
	if err != nil {
		return nil, fmt.Errorf("say what we listen to: %w", err)
	}
	r, err := record.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("say what we listen to: %w", err)
	}
	d.own.epoch = max(d.own.epoch, v.Epoch)
	d.own.saidGroups = r.Hash
	return raw, d.keepOwn(&item{rec: r})
}
