package gateway

import (
	"fmt"

	"github.com/google/nftables"

	"meshd/l2/bridge"
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
	if name, beside := h.uplink4(inside); w.NAT4.IsValid() && name == "" && beside {
		list = append(list, Problem{
			fmt.Sprintf("the IPv4 default route leaves by %s, which the mesh is on: hosts with an address of --dhcp4 get no further than this one", inside.Attrs().Name),
			"let the LAN's own DHCP server serve the mesh (role dhcp), or give this host an uplink beside the bridge",
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
	if chain, drops := bridge.ForwardDrops(nftables.TableFamilyIPv6, nftables.TableFamilyINet); drops {
		list = append(list, Problem{
			fmt.Sprintf("the firewall drops forwarded packets unless a rule accepts them (chain %s)", chain),
			fmt.Sprintf("accept there what comes from %s, and what goes to it", inside.Attrs().Name),
		})
	}
	return list
}
