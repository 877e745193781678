package l2

import (
	"math"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Deprecate says which of the addresses that SetAddresses has set are for
// connections that there are, and not for new ones (RFC 4862, section 5.5.4).
func (t *TAP) Deprecate(old []netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: t.index, Name: t.cfg.Name}}
	list, err := t.nl.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return t.failed("list addresses of tap", err)
	}
	for _, there := range list {
		p := prefixOf(there.IPNet)
		is, should := there.Flags&unix.IFA_F_DEPRECATED != 0, slices.Contains(old, p.Addr())
		if !t.set[p] || is == should {
			continue
		}
		a := addrOf(p)
		forever := uint32(math.MaxUint32)
		a.ValidLft = int(forever)
		if !should {
			a.PreferedLft = int(forever)
		}
		if err := t.nl.AddrReplace(link, a); err != nil {
			return t.failed("change "+p.String()+" of tap", err)
		}
	}
	return nil
}
