package l2

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"

	"github.com/songgao/water"
)

const waterRemedy = "install the tap-windows6 driver of OpenVPN and name its adapter with --tap, or use --no-tap"

func waterConfig(name string) water.Config {
	return water.Config{
		DeviceType:             water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{ComponentID: "tap0901", InterfaceName: name},
	}
}

// setLink sets the MTU. The adapter's MAC is a property of the driver.
func setLink(name string, cfg TAPConfig) error {
	return netsh("interface", "ipv6", "set", "subinterface", name, "mtu="+strconv.Itoa(cfg.MTU), "store=active")
}

func setAddress(name string, p netip.Prefix, add bool) error {
	family, verb, addr := "ipv6", "delete", p.Addr().String()
	if p.Addr().Is4() {
		family = "ipv4"
	}
	if add {
		verb, addr = "add", p.String()
	}
	return netsh("interface", family, verb, "address", name, addr, "store=active")
}

func netsh(args ...string) error {
	if out, err := exec.Command("netsh", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("netsh %v: %w: %s", args, err, out)
	}
	return nil
}
