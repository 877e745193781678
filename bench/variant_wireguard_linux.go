package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"meshd/integration/lab"
)

// wireguard is upstream's wireguard-go: layer 3, or with the kernel's VXLAN on top of it.
type wireguard struct {
	vxlan  bool
	binary string
}

// Name is also report.Baseline.
func (w *wireguard) Name() string {
	if w.vxlan {
		return "wireguard-go+vxlan"
	}
	return "wireguard-go"
}

func (w *wireguard) About() string {
	if w.vxlan {
		return "upstream wireguard-go with kernel VXLAN inside, MTU 1370"
	}
	return "upstream wireguard-go, layer 3, MTU 1420"
}

// Find builds the program from the module that go.mod names.
func (w *wireguard) Find(ctx context.Context, t *Tools) (err error) {
	w.binary, err = lab.Build(ctx, t.Dir, "golang.zx2c4.com/wireguard")
	return err
}

const (
	wgLink = "wg0"
	wgPort = 51820
	wgMTU  = 1420
)

// wgInner are the addresses on WireGuard's interface when VXLAN lies on it.
var wgInner = [2]addresses{
	{v4: netip.MustParsePrefix("10.98.0.1/24"), v6: netip.MustParsePrefix("fd98::1/64")},
	{v4: netip.MustParsePrefix("10.98.0.2/24"), v6: netip.MustParsePrefix("fd98::2/64")},
}

func (w *wireguard) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	var keys [2]wgtypes.Key
	for i := range keys {
		var err error
		if keys[i], err = wgtypes.GeneratePrivateKey(); err != nil {
			return nil, err
		}
	}
	addrs := over
	if w.vxlan {
		addrs = wgInner
	}
	var pids [2][]int
	for i, h := range p.Hosts {
		p.Mark()
		pid, err := p.Run(h, w.binary, "-f", wgLink)
		if err != nil {
			return nil, err
		}
		pids[i] = []int{pid}
		if err := p.AwaitLink(ctx, i, wgLink, wgMTU); err != nil {
			return nil, err
		}
		if err := configure(ctx, pid, keys[i], keys[1-i].PublicKey(), under[1-i].v4.Addr()); err != nil {
			return nil, fmt.Errorf("configure wireguard-go on %s: %w", h.Name(), err)
		}
		if w.vxlan { // AwaitLink has set those that VXLAN is to have
			if err := h.Do(func() error { return renumber(wgLink, addrs[i]) }); err != nil {
				return nil, err
			}
		}
	}
	if w.vxlan {
		ends := [2]netip.Addr{wgInner[0].v4.Addr(), wgInner[1].v4.Addr()}
		if err := addVXLAN(p, ends, wgMTU, over); err != nil {
			return nil, err
		}
	}
	return tunnel(pids[0], pids[1]), nil
}

// renumber replaces all addresses of an interface.
func renumber(name string, a addresses) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	old, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, addr := range old {
		if err := netlink.AddrDel(link, &addr); err != nil {
			return err
		}
	}
	return number(name, a)
}

// configure speaks WireGuard's userspace API to the process, in whose mount namespace the socket is.
func configure(ctx context.Context, pid int, own, peer wgtypes.Key, endpoint netip.Addr) error {
	path := fmt.Sprintf("/proc/%d/root/run/wireguard/%s.sock", pid, wgLink)
	var conn net.Conn
	err := poll(ctx, func() bool {
		var err error
		conn, err = net.DialTimeout("unix", path, time.Second)
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", path, err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "set=1\nprivate_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%v\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n\n",
		hex.EncodeToString(own[:]), wgPort, hex.EncodeToString(peer[:]), netip.AddrPortFrom(endpoint, wgPort)); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if strings.TrimSpace(answer) != "errno=0" {
		return fmt.Errorf("answer %q", answer)
	}
	return nil
}
