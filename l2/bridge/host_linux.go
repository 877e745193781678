package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// setting is a file below /proc/sys/net.
type setting string

func sysctl(family, name, key string) setting {
	return setting(filepath.Join("/proc/sys/net", family, "conf", name, key))
}

func (s setting) get() string {
	b, err := os.ReadFile(string(s))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// set is best effort: a host without IPv6 has no such files, a container may not write them.
func (s setting) set(value string) {
	if value != "" && s.get() != value {
		_ = os.WriteFile(string(s), []byte(value), 0)
	}
}

// awaitUse waits until the IPv6 addresses of an interface are in use, which is a moment
// where duplicates are not looked for: not tentative, and with the route of their own
// that comes last. Without carrier they never are.
func awaitUse(index int) {
	const patience, step = 2 * time.Second, 5 * time.Millisecond
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(step) {
		link, err := netlink.LinkByIndex(index)
		if err != nil || link.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 || inUse(link) {
			return
		}
	}
}

func inUse(link netlink.Link) bool {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return true
	}
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			return false
		}
		if a.IP.IsLinkLocalUnicast() {
			continue
		}
		if routes, err := netlink.RouteGet(a.IP); err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_LOCAL {
			return false
		}
	}
	return true
}

// bootID names this run of the kernel.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// linkOf returns nil without an error when there is no such interface.
func linkOf(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	return link, err
}

// filtered says that bridged frames pass this host's IP firewall (br_netfilter, at dir),
// whose rules are made for what is routed, and which drops what no rule accepts.
func filtered(dir string) []Problem {
	var on []string
	for _, key := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		if setting(filepath.Join(dir, key)).get() == "1" {
			on = append(on, "net.bridge."+key)
		}
	}
	if len(on) == 0 {
		return nil
	}
	if _, drops := ForwardDrops(nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet); !drops {
		return nil
	}
	return []Problem{{
		Code: "bridge-filtered", Text: "bridged frames pass this host's IP firewall, which does not forward all (Docker's, for one)",
		Remedy: "sysctl -w " + strings.Join(on, "=0 ") + "=0, or let the firewall accept what is bridged",
	}}
}

// ForwardDrops looks for a chain of nftables, which iptables is today as well, that drops
// by its policy what is forwarded.
func ForwardDrops(families ...nftables.TableFamily) (chain string, drops bool) {
	conn, err := nftables.New()
	if err != nil {
		return "", false
	}
	for _, family := range families {
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil {
			continue
		}
		for _, c := range chains {
			if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
				return c.Table.Name + " " + c.Name, true
			}
		}
	}
	return "", false
}

// sizes says that a port's MTU is not the TAP's: a bridge cannot fragment.
func (b *Bridge) sizes() []Problem {
	tap, err := netlink.LinkByName(b.record.TAP)
	if err != nil {
		return nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	for _, l := range links {
		a := l.Attrs()
		if a.MasterIndex == tap.Attrs().MasterIndex && a.MasterIndex != 0 && a.MTU < tap.Attrs().MTU {
			return []Problem{{
				Code: "bridge-mtu", Text: fmt.Sprintf("the MTU of %s is %d and the mesh's %d: larger frames from the mesh do not get through", a.Name, a.MTU, tap.Attrs().MTU),
				Remedy: fmt.Sprintf("ip link set %s mtu %d, if the LAN takes it; else found the network with --mtu %d", a.Name, tap.Attrs().MTU, a.MTU),
			}}
		}
	}
	return nil
}

func isBridge(link netlink.Link) bool { return link != nil && link.Type() == "bridge" }

// Check says what keeps an interface from being bridged, or a bridge from being used.
func Check(name string) error {
	if !validName(name) {
		return &Error{name, errors.New("not an interface name"), "name a bridge, or a network interface of this host"}
	}
	link, err := linkOf(name)
	if err != nil {
		return &Error{Name: name, Err: err}
	}
	if link == nil {
		return &Error{name, errors.New("there is no such interface"), "see: ip link; a new bridge is made with: ip link add " + name + " type bridge"}
	}
	if isBridge(link) {
		return nil
	}
	return checkPort(link)
}

// checkPort says why an interface cannot be a bridge's port.
func checkPort(link netlink.Link) error {
	attrs := link.Attrs()
	switch {
	case attrs.Flags&net.FlagLoopback != 0 || attrs.EncapType != "ether" && attrs.EncapType != "":
		return &Error{attrs.Name, errors.New("it is no Ethernet interface"), "name one that is, or a bridge"}
	case attrs.MasterIndex != 0:
		remedy := "name the bridge instead"
		if master, err := netlink.LinkByIndex(attrs.MasterIndex); err == nil {
			remedy = "use --bridge " + master.Attrs().Name + " instead, if that is a bridge"
		}
		return &Error{attrs.Name, errors.New("it belongs to another interface already"), remedy}
	}
	if w := wirelessOf("/sys/class/net", attrs.Name); w {
		if mode, asked := wirelessMode(attrs.Index); !asked || !mode.bridges() {
			return &Error{
				attrs.Name, errors.New("a Wi-Fi client cannot be bridged: its access point takes frames from this host's own address only"),
				"use a cable, or let meshd run on the LAN's router; this host itself needs no --bridge",
			}
		}
	}
	return nil
}

// wirelessOf reports whether an interface is a wireless one, by sysfs at root.
func wirelessOf(root, name string) bool {
	for _, sign := range []string{"wireless", "phy80211"} {
		if _, err := os.Stat(filepath.Join(root, name, sign)); err == nil {
			return true
		}
	}
	return false
}

// The little of nl80211 (linux/nl80211.h) that says what a wireless interface is.
const (
	cmdGetInterface = 5
	attrIfindex     = 3
	attrIftype      = 5
	attr4Addr       = 83

	typeAdHoc = 1
	typeAP    = 3
	typeMesh  = 7
)

// radio is a wireless interface's type, and whether it sends four addresses.
type radio struct {
	kind      uint32
	addresses bool
}

// bridges reports whether frames of other hosts can be sent by it.
func (r radio) bridges() bool {
	return r.addresses || r.kind == typeAP || r.kind == typeMesh || r.kind == typeAdHoc
}

func parseRadio(m []byte) (r radio) {
	const genericHead = 4
	if len(m) < genericHead {
		return r
	}
	attrs := attrsOf(m[genericHead:])
	r.kind, _ = find32(attrs, attrIftype)
	v := find(attrs, attr4Addr)
	r.addresses = len(v) > 0 && v[0] != 0
	return r
}

// wirelessMode asks the kernel; it reports false where that does not know.
func wirelessMode(index int) (radio, bool) {
	family, err := netlink.GenlFamilyGet("nl80211")
	if err != nil {
		return radio{}, false
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	req.AddRawData([]byte{cmdGetInterface, 0, 0, 0})
	req.AddRawData(appendAttr(nil, attr{attrIfindex, binary.NativeEndian.AppendUint32(nil, uint32(index))}))
	answer, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil || len(answer) == 0 {
		return radio{}, false
	}
	return parseRadio(answer[0]), true
}

func fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Name: name, Err: fmt.Errorf("%s: %w", op, err)}
	if errors.Is(err, unix.EPERM) {
		e.Remedy = "run as root, or grant CAP_NET_ADMIN"
	}
	return e
}
