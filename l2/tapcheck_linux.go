package l2

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CheckTAP says what would keep OpenTAP from working, without making anything: to
// be asked before something is done that cannot be undone.
func CheckTAP(cfg TAPConfig) error {
	if err := cfg.check(); err != nil {
		return err
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return &DeviceError{"open tap", cfg.Name, fmt.Errorf("open netlink: %w", err), ""}
	}
	defer handle.Close()
	if err := refuseForeign(handle, cfg.Name); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return openError(cfg.Name, err)
	}
	defer unix.Close(fd)
	if !mayAdministrate() {
		return attachError(cfg.Name, unix.EPERM)
	}
	return nil
}

// mayAdministrate reports CAP_NET_ADMIN (capabilities(7)).
func mayAdministrate() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // version 3 fills two
	if err := unix.Capget(&header, &data[0]); err != nil {
		return true // OpenTAP will tell
	}
	return data[unix.CAP_NET_ADMIN/32].Effective&(1<<(unix.CAP_NET_ADMIN%32)) != 0
}
