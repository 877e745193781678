package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"meshd/keys"
	"meshd/l2/plug"
	"meshd/mesh"
	"meshd/mesh/api"
)

// upFlags are the flags of up as they were written.
type upFlags struct {
	name                string
	join                []string
	resume, detach      bool
	listen, listenTLS   string
	advertise, stun     []string
	tap                 string
	noTAP, noPortmap    bool
	mtu                 int
	prefix              []string
	plug                []string
	gateway             bool
	defaultRoute        string
	raDNS               []string
	dhcp4, raPreference string
	bridge              string
	relay               string
	shareRate           string
	shareVolume         string
	logLevel, logFormat string
}

const (
	// minMTU is IPv6's (RFC 8200, section 5); maxMTU fits the eight pieces in which a frame may cross.
	minMTU = 1280
	maxMTU = 9000
	// maxInterface is IFNAMSIZ without the end.
	maxInterface = 15
	// maxStdin bounds what --join - reads.
	maxStdin = 64 << 10
	// maxInvite is more than any invite has.
	maxInvite = 8 << 10
	// maxHost is the longest DNS name.
	maxHost = 253
)

// upInput is what the meaning of the flags depends on besides them.
type upInput struct {
	hostname string
	stdin    io.Reader
	now      time.Time
}

// config checks all flags and says what they mean. Nothing has been done when it fails.
func (f *upFlags) config(in upInput) (nodeConfig, error) {
	c := nodeConfig{Resume: f.resume, TAP: f.tap, NoTAP: f.noTAP, Bridge: f.bridge, MTU: f.mtu}
	var err error
	if c.Name, err = f.nodeName(in.hostname); err != nil {
		return c, err
	}
	if c.Listen, err = parseListen(f.listen); err != nil {
		return c, err
	}
	if f.listenTLS != "" {
		if c.ListenTLS, err = parseListenFlag("listen-tls", f.listenTLS); err != nil {
			return c, err
		}
	}
	for _, a := range f.advertise {
		if err := checkHostPort("advertise", a); err != nil {
			return c, err
		}
	}
	for _, s := range f.stun {
		if err := checkHostPort("stun", s); err != nil {
			return c, err
		}
	}
	c.Advertise, c.STUN, c.NoPortmap = f.advertise, f.stun, f.noPortmap
	if c.Share, err = f.share(); err != nil {
		return c, err
	}
	if err := f.checkSegment(); err != nil {
		return c, err
	}
	for _, p := range f.plug {
		spec, err := plug.ParseSpec(p)
		if err != nil {
			return c, usagef("plug", "%q is not vde:DIR, stream:PATH or dgram:PATH", p)
		}
		c.Plugs = append(c.Plugs, spec)
	}
	for _, p := range f.prefix {
		prefix, err := parsePrefix(p)
		if err != nil {
			return c, err
		}
		if !slices.Contains(c.Prefixes, prefix) {
			c.Prefixes = append(c.Prefixes, prefix)
		}
	}
	if err := f.routing(&c); err != nil {
		return c, err
	}
	if _, err := f.logHandler(io.Discard); err != nil {
		return c, err
	}
	c.Join, err = f.joins(in)
	return c, err
}

// share is what the flags ask the node to do for others.
func (f *upFlags) share() (c api.ShareChange, err error) {
	switch f.relay {
	case "":
	case "on", "off":
		on := f.relay == "on"
		c.On = &on
	default:
		return c, usagef("relay", "%q is not on or off", f.relay)
	}
	if f.shareRate != "" {
		n, err := parseRate(f.shareRate)
		if err != nil {
			return c, usagef("share-rate", "%v", err)
		}
		c.RateBPS = &n
	}
	if f.shareVolume != "" {
		n, err := parseVolume(f.shareVolume)
		if err != nil {
			return c, usagef("share-volume", "%v", err)
		}
		c.VolumeBytes = &n
	}
	return c, nil
}

// routing checks what concerns ways out of the segment.
func (f *upFlags) routing(c *nodeConfig) error {
	switch mode := mesh.DefaultRoute(f.defaultRoute); mode {
	case mesh.DefaultAuto, mesh.DefaultAlways, mesh.DefaultNever:
		c.DefaultRoute = mode
	default:
		return usagef("default-route", "%q is not auto, always or never", f.defaultRoute)
	}
	if c.Gateway = f.gateway; f.gateway && f.noTAP {
		return usageError("--gateway", "a gateway routes by its TAP", "leave out --no-tap")
	}
	switch f.raPreference {
	case "low", "medium", "high":
		c.RouterPreference = f.raPreference
	default:
		return usagef("ra-preference", "%q is not low, medium or high", f.raPreference)
	}
	if err := f.checkDHCP4(c); err != nil {
		return err
	}
	for _, s := range f.raDNS {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Is4In6() || a.Zone() != "" || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() {
			return usagef("ra-dns", "%q is not the address of a name server", s)
		}
		c.RouterDNS = append(c.RouterDNS, a)
	}
	const most = 8 // in one option (RFC 8106) with room for all else in a packet
	if len(c.RouterDNS) > most {
		return usagef("ra-dns", "more than %d name servers", most)
	}
	return nil
}

// checkDHCP4 checks the subnet of --dhcp4.
func (f *upFlags) checkDHCP4(c *nodeConfig) error {
	if f.dhcp4 == "" {
		return nil
	}
	p, err := netip.ParsePrefix(f.dhcp4)
	switch {
	case err != nil || !p.Addr().Is4() || p.Bits() < 16 || p.Bits() > 29:
		return usagef("dhcp4", "%q is not an IPv4 subnet like 192.0.2.0/24, from /16 to /29", f.dhcp4)
	case p != p.Masked():
		return usageError("--dhcp4", fmt.Sprintf("%q has bits beyond the prefix", f.dhcp4), fmt.Sprintf("did you mean %v?", p.Masked()))
	case !p.Addr().IsGlobalUnicast() || p.Addr().As4()[0] == 0 || p.Addr().As4()[0] >= 240:
		return usagef("dhcp4", "%q cannot be a segment's", f.dhcp4)
	case f.noTAP:
		return usageError("--dhcp4", "a gateway routes by its TAP", "leave out --no-tap")
	}
	c.DHCP4 = p
	return nil
}

// nodeName is the name that the node wants.
func (f *upFlags) nodeName(hostname string) (string, error) {
	if f.name == "" {
		return keys.SanitizeName(hostname), nil
	}
	if err := keys.ValidateName(f.name); err != nil {
		return "", usagef("name", "%v", err)
	}
	return f.name, nil
}

// checkSegment checks what concerns the TAP and the segment.
func (f *upFlags) checkSegment() error {
	switch {
	case f.tap == "":
		return usagef("tap", "the interface's name is empty")
	case len(f.tap) > maxInterface:
		return usagef("tap", "the interface's name %q has more than %d bytes", f.tap, maxInterface)
	case !interfaceName(f.tap):
		return usagef("tap", "%q cannot name an interface", f.tap)
	case f.bridge != "" && !interfaceName(f.bridge):
		return usagef("bridge", "%q cannot name an interface", f.bridge)
	case f.bridge != "" && f.noTAP:
		return usageError("--bridge", "without a TAP there is nothing to put into a bridge", "leave out --no-tap")
	case f.bridge != "" && f.bridge == f.tap:
		return usageError("--bridge", "that is the TAP itself", "name a bridge, or the interface of the LAN")
	case f.mtu != 0 && (f.mtu < minMTU || f.mtu > maxMTU):
		return usagef("mtu", "%d is not from %d to %d", f.mtu, minMTU, maxMTU)
	case f.mtu != 0 && len(f.join) > 0:
		return usageError("--mtu", "the network that you join has its own", "leave it out")
	case len(f.prefix) > 0 && len(f.join) > 0:
		return usageError("--prefix", "the network that you join has its own", "leave it out")
	}
	return nil
}

// interfaceName reports whether an interface can have that name.
func interfaceName(s string) bool {
	return s != "" && len(s) <= maxInterface && s != "." && s != ".." &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) })
}

// parseListen reads ADDR:PORT; no address means all, no text means all and the default port.
func parseListen(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), defaultPort), nil
	}
	return parseListenFlag("listen", s)
}

// parseListenFlag reads the ADDR:PORT of a flag; no address means all.
func parseListenFlag(flag, s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, usagef(flag, "%q is not ADDR:PORT", s)
	}
	n, err := parsePort(port, 0)
	if err != nil {
		return netip.AddrPort{}, usagef(flag, "%q: %v", s, err)
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), n), nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, usagef(flag, "%q is not an address of this host", host)
	}
	if addr.IsMulticast() {
		return netip.AddrPort{}, usagef(flag, "%q is a multicast address", host)
	}
	return netip.AddrPortFrom(addr.Unmap(), n), nil
}

// parsePort reads a port that is at least low.
func parsePort(s string, low uint64) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < low {
		return 0, fmt.Errorf("the port %q is not from %d to 65535", s, low)
	}
	return uint16(n), nil
}

// checkHostPort says what is wrong with HOST:PORT, both needed.
func checkHostPort(flag, s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return usagef(flag, "%q is not HOST:PORT", s)
	}
	if _, err := parsePort(port, 1); err != nil {
		return usagef(flag, "%q: %v", s, err)
	}
	if err := checkHost(host); err != nil {
		return usagef(flag, "%q: %v", s, err)
	}
	return nil
}

// checkHost accepts an address and what can be looked up in DNS.
func checkHost(host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.IsMulticast() || addr.IsUnspecified() {
			return fmt.Errorf("%v cannot be reached", addr)
		}
		return nil
	}
	name := strings.TrimSuffix(host, ".")
	if name == "" || len(name) > maxHost {
		return fmt.Errorf("a host's name has 1 to %d bytes", maxHost)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%q is neither an address nor a host's name", host)
		}
		if strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return fmt.Errorf("%q is neither an address nor a host's name", host)
		}
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%q is neither an address nor a host's name", host) // 10.0.0.256, 12345
	}
	return nil
}

// parsePrefix reads an IPv6 /64 that a segment can have.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || !p.Addr().Is6() || p.Addr().Is4In6():
		return p, usagef("prefix", "%q is not an IPv6 prefix like fd12:3456:789a::/64", s)
	case p.Bits() != 64:
		return p, usagef("prefix", "%q is not a /64", s)
	case p != p.Masked():
		return p, usageError("--prefix", fmt.Sprintf("%q has bits beyond the prefix", s), fmt.Sprintf("did you mean %v?", p.Masked()))
	case p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() || p.Addr().IsUnspecified() || p.Addr().IsLoopback():
		return p, usagef("prefix", "%q cannot be a segment's", s)
	}
	return p, nil
}

// joins reads where to join. Invites are checked here, so that nothing is made for one that cannot be good.
func (f *upFlags) joins(in upInput) ([]string, error) {
	var all []string
	fromStdin := false
	for _, j := range f.join {
		if j != "-" {
			all = append(all, strings.TrimSpace(j))
			continue
		}
		if fromStdin {
			continue
		}
		fromStdin = true
		lines, err := readLines(in.stdin)
		if err != nil {
			return nil, err
		}
		all = append(all, unwrap(lines, in.now)...)
	}
	invites := 0
	for _, j := range all {
		if isInvite(j) {
			if invites++; invites > 1 {
				return nil, usagef("join", "more than one invite was given")
			}
		}
		if err := checkJoin(j, in.now); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readLines reads entry points, one a line.
func readLines(r io.Reader) ([]string, error) {
	var lines []string
	sc := bufio.NewScanner(io.LimitReader(r, maxStdin))
	sc.Buffer(make([]byte, 0, 4096), maxStdin)
	for sc.Scan() {
		if line := strings.TrimSpace(sc.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, &api.Error{Code: api.CodeFailed, What: "--join -", Why: "read stdin: " + err.Error(), Err: err}
	}
	if len(lines) == 0 {
		return nil, usageError("--join -", "stdin is empty", "pipe the line that meshd invite prints into it")
	}
	return lines, nil
}

// unwrap puts an invite together again that mail has broken into lines.
func unwrap(lines []string, now time.Time) []string {
	at := slices.IndexFunc(lines, isInvite)
	if at < 0 {
		return lines
	}
	for end := at + 1; end <= len(lines); end++ {
		whole := strings.Join(lines[at:end], "")
		if len(whole) > maxInvite {
			break
		}
		if !isMalformed(whole, now) {
			return slices.Concat(lines[:at], []string{whole}, lines[end:])
		}
	}
	return lines
}

// checkJoin says what is wrong with an entry point.
func checkJoin(j string, now time.Time) error {
	if isInvite(j) {
		return checkInvite(j, now)
	}
	if strings.HasPrefix(j, "ssh://") {
		if err := checkSSH(j); err != nil {
			return usageError("--join", err.Error(), "give ssh://user@host, with :port where it is not the usual one")
		}
		return nil
	}
	host, port := splitEntry(j)
	err := checkHost(host)
	if err == nil && port != "" {
		_, err = parsePort(port, 1)
	}
	if err != nil {
		const remedy = "give HOST[:PORT], ssh://user@host, the line that meshd invite prints, or - to read it from stdin"
		if len(j) > maxHost {
			return usageError("--join", "it is neither a host nor an invite", remedy)
		}
		return usageError("--join", fmt.Sprintf("%q: %v", j, err), remedy)
	}
	return nil
}

// splitEntry splits HOST[:PORT]; an IPv6 address may stand without brackets.
func splitEntry(s string) (host, port string) {
	if h, p, err := net.SplitHostPort(s); err == nil && p != "" {
		return h, p
	}
	if h, ok := strings.CutPrefix(s, "["); ok {
		if h, ok = strings.CutSuffix(h, "]"); ok {
			return h, ""
		}
	}
	return s, ""
}

// logHandler is the log as the flags want it.
func (f *upFlags) logHandler(w io.Writer) (slog.Handler, error) {
	var level slog.Level
	switch f.logLevel {
	case "debug", "info", "warn", "error":
		if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
			return nil, usagef("log-level", "%v", err)
		}
	default:
		return nil, usagef("log-level", "%q is not debug, info, warn or error", f.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.NewTextHandler(w, o), nil
	case "json":
		return slog.NewJSONHandler(w, o), nil
	default:
		return nil, usagef("log-format", "%q is not text or json", f.logFormat)
	}
}
