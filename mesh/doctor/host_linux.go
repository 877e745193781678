package doctor

import (
	"context"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"meshd/mesh/api"
	"meshd/peer/udp"
)

// clockSynchronised asks the kernel whether somebody keeps the clock (adjtimex(2)).
func clockSynchronised() (yes, known bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err == nil
}

func checkBuffers(_ context.Context, cfg Config) []api.Check {
	const name = "socket-buffers"
	if cfg.Status != nil {
		for _, h := range cfg.Status.Health {
			if h.Code == name {
				return one(name, api.CheckWarning, h.Remedy, "%s", h.Text)
			}
		}
		return ok(name, "the node has what it wants")
	}
	limit := readNumber("/proc/sys/net/core/rmem_max")
	if limit == 0 || limit >= udp.DefaultBuffer {
		return ok(name, "net.core.rmem_max is enough")
	}
	c := udp.Options{}
	v4, v6, err := udp.ListenPort(0, c)
	if err != nil {
		return skipped(name, "%v", err)
	}
	got := 0
	for _, conn := range []udp.Conn{v4, v6} {
		if conn == nil {
			continue
		}
		if b, ok := conn.(interface{ Buffers() (rcv, snd int) }); ok {
			got, _ = b.Buffers()
		}
		_ = conn.Close()
	}
	if got >= udp.DefaultBuffer {
		return ok(name, "this user may have %d bytes", got)
	}
	size := strconv.Itoa(udp.DefaultBuffer)
	return one(name, api.CheckWarning, "sysctl -w net.core.rmem_max="+size+" net.core.wmem_max="+size+", or run meshd with CAP_NET_ADMIN",
		"sockets get %d bytes here, and bursts at full rate need %d", got, udp.DefaultBuffer)
}

func readNumber(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// segmentOn is the interface that has the node's addresses: the bridge that the TAP is in, or the TAP.
func segmentOn(s *api.Status) string {
	switch {
	case s == nil:
		return ""
	case s.Self.Bridge != nil && s.Self.Bridge.Name != "":
		return s.Self.Bridge.Name
	}
	return s.Self.TAP
}

func checkIPv6(_ context.Context, cfg Config) []api.Check {
	const name = "ipv6"
	const dir = "/proc/sys/net/ipv6/conf/"
	if _, err := os.Stat(dir); err != nil {
		return one(name, api.CheckFailed, "boot without ipv6.disable=1", "this kernel has no IPv6, which the mesh's own addresses need")
	}
	if on := segmentOn(cfg.Status); on != "" && readNumber(dir+on+"/disable_ipv6") != 0 {
		return one(name, api.CheckFailed, "sysctl -w net.ipv6.conf."+on+".disable_ipv6=0", "IPv6 is turned off on %s", on)
	}
	if cfg.Status == nil && readNumber(dir+"default/disable_ipv6") != 0 {
		return one(name, api.CheckWarning, "sysctl -w net.ipv6.conf.default.disable_ipv6=0", "IPv6 is turned off on new interfaces; the mesh's own addresses need it")
	}
	return ok(name, "it is on")
}
