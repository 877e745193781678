package l2

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Hosts lists the stations of the segment, ordered by VLAN and address.
func (s *Switch) Hosts() []Host {
	now, v := s.now(), s.view.Load()
	found := map[station]*Host{}
	s.hosts.each(now, func(k station, at *origin, bound bool, age time.Duration) {
		learned := LearnedData
		if bound {
			learned = LearnedRecord
		}
		found[k] = hostOf(k, at, learned, age)
	})
	// Members have their own address in every VLAN; they are listed untagged, and
	// below in each VLAN where they have shown an IP address.
	found[stationOf(0, v.own.mac)] = s.member(v, v.own.mac, 0, now)
	for mac := range v.owner.all() {
		found[stationOf(0, mac)] = s.member(v, mac, 0, now)
	}
	s.heard.each(now, func(k station, _ *origin, ips []netip.Addr) {
		h := found[k]
		if h == nil {
			if h = s.member(v, k.mac(), k.vlan(), now); h == nil {
				return // it has aged
			}
			found[k] = h
		}
		h.IPs = ips
	})
	hosts := make([]Host, 0, len(found))
	for _, h := range found {
		hosts = append(hosts, *h)
	}
	slices.SortFunc(hosts, func(a, b Host) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), bytes.Compare(a.MAC[:], b.MAC[:]))
	})
	return hosts
}

func hostOf(k station, at *origin, learned string, age time.Duration) *Host {
	h := &Host{MAC: k.mac(), VLAN: k.vlan(), Learned: learned, Age: age}
	if at.remote != nil {
		h.Port = at.remote.name
	}
	return h
}

// member is the host that has mac as its own address, or nil.
func (s *Switch) member(v *view, mac MAC, vlan uint16, now time.Duration) *Host {
	k := stationOf(vlan, mac)
	if mac == v.own.mac {
		return hostOf(k, &s.local, LearnedOwn, 0)
	}
	if o := v.owner.of(mac); o != nil {
		age := time.Duration(0)
		if o.remote != nil {
			age = now - time.Duration(o.remote.seen.Load())
		}
		return hostOf(k, o, LearnedRecord, age)
	}
	return nil
}
