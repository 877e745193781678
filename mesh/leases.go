package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"meshd/keys"
	"meshd/l2/dhcp4"
)

// leasesEvery bounds how often leases are written. A client of one that was lost gets
// the same address all the same, as a rule.
const leasesEvery = 5 * time.Second

// dhcp is the server of --dhcp4.
type dhcp struct {
	server  *dhcp4.Server // nil: it does not serve
	trouble string        // why it does not although it should
	unsaved bool
	saved   time.Time
}

// savedLease is a lease on disk.
type savedLease struct {
	Key   []byte `cbor:"1,keyasint"`
	IP    []byte `cbor:"2,keyasint"`
	Until int64  `cbor:"3,keyasint"` // seconds since 1970
	MAC   []byte `cbor:"4,keyasint,omitempty"`
}

// advanceDHCP answers those who ask for an IPv4 address.
func (n *Node) advanceDHCP(now time.Time) time.Time {
	d := &n.state.routing.dhcp
	if !n.cfg.DHCP4.IsValid() || n.state.routing.host == nil {
		return time.Time{}
	}
	cfg := dhcp4.Config{MAC: n.state.segment.mac, Subnet: n.cfg.DHCP4, Lease: dhcp4.DefaultLease}
	own := n.state.dir.Member(n.self)
	holder, held := n.state.segment.sw.Holder(cfg.Router())
	switch {
	case own == nil || !own.Certificate.Roles.Has(keys.RoleDHCP):
		d.server, d.trouble = nil, "this node has not the role dhcp, and others take no address from it"
		return time.Time{}
	case d.server == nil && held && holder != n.state.segment.mac:
		d.trouble = fmt.Sprintf("%v has the address %v already", holder, cfg.Router())
		return time.Time{}
	}
	if d.server == nil {
		cfg.DNS = slices.DeleteFunc(slices.Clone(n.cfg.RouterDNS), netip.Addr.Is6)
		_, _, mtu := n.state.dir.Network()
		cfg.MTU = mtu
		d.server, d.trouble = dhcp4.New(cfg, n.loadLeases()), ""
		n.log.Info("handing out IPv4 addresses", "subnet", cfg.Subnet)
	}
	frames, next := d.server.Poll(now, func(ip netip.Addr) (dhcp4.MAC, bool) {
		mac, ok := n.state.segment.sw.Holder(ip)
		return dhcp4.MAC(mac), ok
	})
	for _, f := range frames {
		n.state.segment.sw.Inject(f)
	}
	d.unsaved = d.server.Changed() || d.unsaved
	if d.unsaved && now.Sub(d.saved) >= leasesEvery {
		d.saved = now
		n.saveLeases()
	}
	return next
}

func (n *Node) loadLeases() (list []dhcp4.Lease) {
	raw, err := n.store.Load(stateLeases)
	var saved []savedLease
	if err == nil {
		err = cbor.Unmarshal(raw, &saved)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.log.Warn("read leases", "err", err)
	}
	for _, l := range saved {
		if ip, ok := netip.AddrFromSlice(l.IP); ok {
			was := dhcp4.Lease{Key: string(l.Key), IP: ip, Until: time.Unix(l.Until, 0), Taken: true}
			copy(was.MAC[:], l.MAC)
			list = append(list, was)
		}
	}
	return list
}

// saveLeases writes them, if they have changed.
func (n *Node) saveLeases() {
	d := &n.state.routing.dhcp
	if d.server == nil || !d.unsaved {
		return
	}
	d.unsaved = false
	saved := []savedLease{}
	for _, l := range d.server.Leases() {
		saved = append(saved, savedLease{[]byte(l.Key), l.IP.AsSlice(), l.Until.Unix(), l.MAC[:]})
	}
	raw, err := cbor.Marshal(saved)
	if err == nil {
		err = n.store.Save(stateLeases, raw)
	}
	if err != nil {
		n.log.Warn("write leases", "err", err)
	}
}
