package l2

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"

	"github.com/songgao/water"
)

const waterRemedy = "install the tuntaposx driver and name one of its devices, such as --tap tap0, or use --no-tap"

func waterConfig(name string) water.Config {
	return water.Config{
		DeviceType:             water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, Driver: water.MacOSDriverTunTapOSX},
	}
}

func setLink(name string, cfg TAPConfig) error {
	args := []string{name, "mtu", strconv.Itoa(cfg.MTU)}
	if cfg.MAC != (MAC{}) {
		args = append(args, "lladdr", cfg.MAC.String())
	}
	return ifconfig(append(args, "up")...)
}

func setAddress(name string, p netip.Prefix, add bool) error {
	family, verb := "inet6", "delete"
	if p.Addr().Is4() {
		family = "inet"
	}
	if add {
		verb = "add"
	}
	if !add {
		return ifconfig(name, family, p.Addr().String(), verb)
	}
	return ifconfig(name, family, p.String(), verb)
}

func ifconfig(args ...string) error {
	if out, err := exec.Command("/sbin/ifconfig", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ifconfig %v: %w: %s", args, err, out)
	}
	return nil
}
