// Command deps installs the programs that the tests run besides Go itself:
// with apt on Debian, else it says what is missing.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// programs maps a program to the Debian package that has it.
var programs = []struct{ program, pkg string }{
	{"ping", "iputils-ping"},
	{"ip", "iproute2"},
	{"arping", "iputils-arping"},
	{"mount", "mount"},        // hides /dev/net/tun
	{"setpriv", "util-linux"}, // takes rights away
	{"iperf3", "iperf3"},      // bench
	{"tcpdump", "tcpdump"},
	{"ssh", "openssh-client"},
	{"/usr/sbin/sshd", "openssh-server"},
	{"wg", "wireguard-tools"},
	{"openssl", "openssl"},
	{"gcc", "gcc"}, // the race detector needs cgo
	{"dbus-daemon", "dbus"},
	{"/usr/sbin/avahi-daemon", "avahi-daemon"}, // mDNS
	{"avahi-browse", "avahi-utils"},
	{"systemd-analyze", "systemd"},
	{"valgrind", "valgrind"},            // the budget of instructions
	{"nft", "nftables"},                 // the routers of the traversal tests
	{"miniupnpd", "miniupnpd-nftables"}, // PCP, NAT-PMP, UPnP
	{"vde_plug", "vde2"},                // plugs
	{"tayga", "tayga"},                  // NAT64
	{"unbound", "unbound"},              // DNS64
	{"tinyproxy", "tinyproxy"},          // proxies of the stream tests
	{"microsocks", "microsocks"},
	{"qemu-system-x86_64", "qemu-system-x86"}, // virtual machines
	{"busybox", "busybox-static"},             // what they run, and a DHCP client
	{"radvd", "radvd"},                        // routers of others
	{"dnsmasq", "dnsmasq-base"},               // likewise
	{"/usr/sbin/dhclient", "isc-dhcp-client"}, // another DHCP client
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "deps:", err)
		os.Exit(1)
	}
}

func run() error {
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p.program); err != nil {
			missing = append(missing, p.pkg)
		}
	}
	if len(missing) == 0 {
		return guests(false)
	}
	list := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing programs, by their Debian packages: %s: install them with this system's package manager", list)
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("missing packages: run as root: apt-get install %s", list)
	}
	return errors.Join(
		apt("update", "-q"),
		apt(append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)...),
		guests(true),
	)
}

func apt(args ...string) error {
	cmd := exec.Command("apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apt-get %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
