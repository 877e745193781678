package gateway

import (
	"fmt"

	"github.com/google/nftables"
)

// Problems says which of the host's settings stand in the way of what is wanted.
func (h *Host) Problems(w Want) (list []Problem) {
	inside, err := h.inside()
	if err != nil {
		return nil
	}
	name := inside.Attrs().Name // a TAP in a bridge has no addresses, and IPv6 off
	if v, err := h.settings.read(conf(name, "disable_ipv6")); err == nil && v != "0" {
		list = append(list, Problem{
			fmt.Sprintf("IPv6 is off on %s", name), fmt.Sprintf("sysctl -w net.ipv6.conf.%s.disable_ipv6=0", name),
		})
	}
	if v, err := h.settings.read(conf(h.tap, "accept_ra")); err == nil && v != "0" {
		list = append(list, Problem{
			fmt.Sprintf("somebody has set accept_ra of %s to %s: the kernel takes routes of the mesh whatever --default-route says", h.tap, v),
			fmt.Sprintf("sysctl -w net.ipv6.conf.%s.accept_ra=0; keep NetworkManager and systemd-networkd from managing %s", h.tap, h.tap),
		})
	}
	if !w.Forward {
		return list
	}
	for _, c := range h.settings.changed {
		if now, err := h.settings.read(c.key); err == nil && now == c.before {
			list = append(list, Problem{"somebody has put " + c.key + " back to " + now + ", so that packets are not forwarded", "see /etc/sysctl.d; restart meshd"})
		}
	}
	if name, drops := dropsForwarded(); drops {
		list = append(list, Problem{
			fmt.Sprintf("the firewall drops forwarded packets unless a rule accepts them (chain %s)", name),
			fmt.Sprintf("accept there what comes from %s, and what goes to it", inside.Attrs().Name),
		})
	}
	return list
}

// dropsForwarded looks for a chain for forwarded packets that drops by default.
func dropsForwarded() (name string, drops bool) {
	c, err := nftables.New()
	if err != nil {
		return "", false
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv6, nftables.TableFamilyINet} {
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			continue
		}
		for _, chain := range chains {
			if chain.Hooknum != nil && *chain.Hooknum == *nftables.ChainHookForward && chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
				return chain.Table.Name + " " + chain.Name, true
			}
		}
	}
	return "", false
}
