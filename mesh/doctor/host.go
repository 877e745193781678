package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"meshd/l2"
	"meshd/mesh/api"
	"meshd/mesh/names"
	"meshd/nat-traversal/nat64"
	"meshd/peer/udp"
)

func checkTUN(_ context.Context, cfg Config) []api.Check {
	const name = "tun"
	if cfg.Status != nil && cfg.Status.Self.TAP != "" && cfg.Status.Self.Ready {
		return ok(name, "%s is up", cfg.Status.Self.TAP)
	}
	err := l2.CheckTAP(l2.TAPConfig{Name: cfg.TAP, MTU: 1500})
	if err == nil {
		return ok(name, "a TAP can be made")
	}
	remedy := "run meshd as root, or with CAP_NET_ADMIN; --no-tap does without"
	switch {
	case errors.Is(err, fs.ErrNotExist) && inContainer():
		remedy = "start the container with --device /dev/net/tun --cap-add NET_ADMIN; --no-tap does without"
	case errors.Is(err, fs.ErrNotExist):
		remedy = "load the module: modprobe tun"
	case inContainer():
		remedy = "start the container with --cap-add NET_ADMIN; --no-tap does without"
	}
	if cfg.Status != nil && cfg.Status.Self.TAP == "" {
		return ok(name, "the node runs without a TAP")
	}
	if errors.Is(err, fs.ErrPermission) && cfg.Status == nil && os.Geteuid() != 0 {
		return one(name, api.CheckWarning, remedy, "%v", err)
	}
	return one(name, api.CheckFailed, remedy, "%v", err)
}

// inContainer guesses by the marks that Podman and Docker leave.
func inContainer() bool {
	for _, mark := range []string{"/run/.containerenv", "/.dockerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}

func checkState(_ context.Context, cfg Config) []api.Check {
	const name = "state"
	info, err := os.Stat(cfg.StateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ok(name, "%s is made at the first start", cfg.StateDir)
	case errors.Is(err, fs.ErrPermission):
		return skipped(name, "%s is not to be seen by this user", cfg.StateDir)
	case err != nil:
		return one(name, api.CheckFailed, "name another folder with --state", "%v", err)
	case !info.IsDir():
		return one(name, api.CheckFailed, "name another folder with --state", "%s is no folder", cfg.StateDir)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return one(name, api.CheckWarning, "chmod 700 "+cfg.StateDir, "%s has private keys and may be entered by others (%v)", cfg.StateDir, info.Mode().Perm())
	}
	return ok(name, "%s", cfg.StateDir)
}

// checkPort tries whether a node would get its port, where none runs.
func checkPort(_ context.Context, cfg Config) []api.Check {
	const name = "port"
	if cfg.Status != nil {
		return ok(name, "the node has UDP port %d", cfg.Port)
	}
	v4, v6, err := udp.ListenPort(cfg.Port, udp.Options{})
	if err != nil {
		return one(name, api.CheckFailed, "end the other program, or choose another port with --listen", "%v", err)
	}
	families := []string{}
	for family, c := range map[string]udp.Conn{"IPv4": v4, "IPv6": v6} {
		if c != nil {
			families = append(families, family)
			_ = c.Close()
		}
	}
	slices.Sort(families)
	return ok(name, "UDP port %d is free (%v)", cfg.Port, families)
}

// earliestTime is when this was written: a clock before it is wrong.
func earliestTime() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func checkClock(context.Context, Config) []api.Check {
	const name = "clock"
	now := time.Now()
	switch synchronised, known := clockSynchronised(); {
	case now.Before(earliestTime()):
		return one(name, api.CheckFailed, "set this host's clock", "it says %s", now.UTC().Format(time.RFC3339))
	case known && !synchronised:
		return one(name, api.CheckWarning, "run chrony, ntpd or systemd-timesyncd; by a clock that is wrong, invites and certificates end too early or too late",
			"it says %s, and nobody keeps it right", now.UTC().Format(time.RFC3339))
	}
	return ok(name, "%s", now.UTC().Format(time.RFC3339))
}

// checkDNS asks the system's resolver for a name that every DNS answers for, if
// only by saying that there is no such address.
func checkDNS(ctx context.Context, _ Config) []api.Check {
	const name = "dns"
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", nat64.Name)
	if e := (*net.DNSError)(nil); errors.As(err, &e) && !e.IsNotFound {
		return one(name, api.CheckWarning, "repair the name servers of this host (resolv.conf); members that were met before are reached without",
			"names of the internet are not resolved: %v", err)
	}
	if prefixes := nat64.Prefixes(addrs); len(prefixes) > 0 {
		return ok(name, "names are resolved; NAT64 prefix %v", prefixes[0])
	}
	return ok(name, "names are resolved")
}

// checkNames asks for this node's own name in the mesh.
func checkNames(ctx context.Context, cfg Config) []api.Check {
	const name = "mesh-names"
	if cfg.Status == nil || cfg.Status.Self.Name == "" || len(cfg.Status.Self.Addresses) == 0 {
		return skipped(name, "no daemon to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	host := cfg.Status.Self.Name + "." + names.Domain
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip6", host)
	if slices.Contains(addrs, cfg.Status.Self.Addresses[0]) {
		return ok(name, "%s resolves", host)
	}
	server := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), names.DefaultPort)
	why := fmt.Sprintf("%s is not resolved", host)
	if err == nil {
		why = fmt.Sprintf("%s resolves to %v, which is not this node", host, addrs)
	}
	return one(name, api.CheckWarning, "install systemd-resolved, or "+names.Hint(server), "%s: this host's resolver does not ask meshd (at %v)", why, server)
}
