package l2

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// txQueueLen is the host's queue towards us: deep enough for a burst while a batch
// is on its way.
const txQueueLen = 1000

// addrGenEUI64 is IN6_ADDR_GEN_MODE_EUI64: the link-local address is made from the MAC,
// as stable as that. Under the other modes there may be none.
const addrGenEUI64 = 0

// configure sets the link up as it is to be. It may run on one that is in use.
func (t *TAP) configure() error {
	link, err := t.nl.LinkByName(t.cfg.Name)
	if err != nil {
		return t.failed("find tap", err)
	}
	t.index = link.Attrs().Index
	mac := net.HardwareAddr(t.cfg.MAC[:])
	if t.cfg.MAC != (MAC{}) && !slices.Equal(mac, link.Attrs().HardwareAddr) {
		if err := t.nl.LinkSetHardwareAddr(link, mac); err != nil {
			return t.failed("set address of tap", err)
		}
	}
	if err := t.nl.LinkSetMTU(link, t.cfg.MTU); err != nil {
		return t.failed("set MTU of tap", err)
	}
	if err := t.nl.LinkSetTxQLen(link, txQueueLen); err != nil {
		return t.failed("set queue length of tap", err)
	}
	if err := t.nl.LinkSetARPOn(link); err != nil {
		return t.failed("set ARP of tap", err)
	}
	t.tuneIPv4()
	t.tuneIPv6(link) // before it is up: that is when the kernel makes the link-local address
	if err := t.nl.LinkSetUp(link); err != nil {
		return t.failed("set tap up", err)
	}
	return t.adopt(link)
}

func (t *TAP) failed(op string, err error) error {
	e := &DeviceError{Op: op, Name: t.cfg.Name, Err: err}
	if errors.Is(err, unix.EPERM) {
		e.Remedy = "run as root, or grant CAP_NET_ADMIN"
	}
	return e
}

// tuneIPv4 has the TAP answer ARP for its own addresses only. Others of this host may be
// those of its uplink: whoever bridges the LAN there must not look for them here. A host
// where this is not possible still works.
func (t *TAP) tuneIPv4() {
	_ = os.WriteFile(filepath.Join("/proc/sys/net/ipv4/conf", t.cfg.Name, "arp_ignore"), []byte("1"), 0)
}

// tuneIPv6 keeps the host from taking its address, its default route or a delay from
// the segment. A host where this is not possible still works, so failures become problems.
func (t *TAP) tuneIPv6(link netlink.Link) {
	dir := filepath.Join("/proc/sys/net/ipv6/conf", t.cfg.Name)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		t.problem("ipv6-off", "the kernel runs without IPv6: members' addresses cannot be set", "boot without ipv6.disable=1")
		return
	}
	if err := t.nl.LinkSetIP6AddrGenMode(link, addrGenEUI64); err != nil {
		t.problem("tap-link-local", fmt.Sprintf("the link-local address of %s is left to the host: %v", t.cfg.Name, err), "")
	}
	var failed []string
	for _, setting := range [...]struct{ key, value string }{
		{"disable_ipv6", "0"}, // a host may have it on for all new interfaces
		{"accept_ra", "0"},    // routers need a role; until then nobody has it
		{"autoconf", "0"},
		{"accept_dad", "0"}, // addresses are unique by key
	} {
		path := filepath.Join(dir, setting.key)
		if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == setting.value {
			continue
		}
		if err := os.WriteFile(path, []byte(setting.value), 0); err != nil {
			failed = append(failed, setting.key+"="+setting.value)
		}
	}
	if len(failed) > 0 {
		prefix := "net.ipv6.conf." + strings.ReplaceAll(t.cfg.Name, ".", "/") + "."
		t.problem("tap-sysctl", "could not set "+strings.Join(failed, ", ")+" on "+t.cfg.Name+": /proc/sys is not writable",
			"sysctl -w "+prefix+strings.Join(failed, " "+prefix))
	}
}

func (t *TAP) problem(code, text, remedy string) {
	t.problems = append(t.problems, Problem{code, text, remedy})
}

// addresses are those that are ours, on the interface.
type addresses map[netip.Prefix]bool

// adopt finds the addresses that an earlier process of ours left on the TAP: global,
// permanent and set without duplicate address detection, which neither the kernel
// nor people do by themselves.
func (t *TAP) adopt(link netlink.Link) error {
	there, err := t.nl.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return t.failed("list addresses of tap", err)
	}
	t.set = addresses{}
	for _, a := range there {
		const ours = unix.IFA_F_NODAD | unix.IFA_F_PERMANENT
		if a.Scope == unix.RT_SCOPE_UNIVERSE && a.Flags&ours == ours {
			t.set[prefixOf(a.IPNet)] = true
		}
	}
	return nil
}

// SetAddresses makes addrs the addresses of the interface: it adds what is missing
// and removes what it has set before. Addresses set by others stay. It may be called
// after Close as long as the interface is there.
func (t *TAP) SetAddresses(addrs []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: t.index, Name: t.cfg.Name}}
	list, err := t.nl.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return t.failed("list addresses of tap", err)
	}
	there := addresses{}
	for _, a := range list {
		there[prefixOf(a.IPNet)] = true
	}
	var errs []error
	for _, p := range addrs {
		if there[p] {
			continue // if it is not ours, it stays another's
		}
		if err := t.nl.AddrReplace(link, addrOf(p)); err != nil {
			errs = append(errs, t.failed("add "+p.String()+" to tap", err))
			continue
		}
		t.set[p] = true
	}
	for p := range t.set {
		if slices.Contains(addrs, p) {
			continue
		}
		if there[p] {
			if err := t.nl.AddrDel(link, addrOf(p)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				errs = append(errs, t.failed("remove "+p.String()+" from tap", err))
				continue
			}
		}
		delete(t.set, p)
	}
	return errors.Join(errs...)
}

func addrOf(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func prefixOf(n *net.IPNet) netip.Prefix {
	ip, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits)
}

// holder finds the process that has the TAP name open, as " (pid 12, name)". Without
// the right to look it is "". Other namespaces may have a TAP of that name, too: a
// process counts only in ours (or when it is this one).
func holder(name string) string {
	ours, _ := os.Readlink("/proc/thread-self/ns/net")
	links, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	for _, path := range links {
		// fdinfo of a TUN descriptor has a line "iff:	mesh0".
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text)+"\n", "iff:\t"+name+"\n") {
			continue
		}
		pid := strings.Split(path, "/")[2]
		if theirs, _ := os.Readlink("/proc/" + pid + "/ns/net"); theirs != ours && pid != strconv.Itoa(os.Getpid()) {
			continue
		}
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf(" (pid %s, %s)", pid, strings.TrimSpace(string(comm)))
	}
	return ""
}
