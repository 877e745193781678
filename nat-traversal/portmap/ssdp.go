package portmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

const (
	ssdpPort = 1900
	// ssdpWait is how long routers may take to answer: they are asked to take a
	// second at most (MX), and asked again after half of it.
	ssdpWait    = 2 * time.Second
	ssdpAnswers = 64 // looked at for one search: a LAN may be full of televisions
)

var errNoUPnP = errors.New("no UPnP router answers")

// search finds the description of the router by SSDP (UPnP Device Architecture
// 1.1, section 1.3): the router is asked, and its LAN, and only what the router
// says is listened to.
func search(ctx context.Context, r Route, prepare control) (*url.URL, error) {
	lc := net.ListenConfig{Control: prepare}
	conn, err := lc.ListenPacket(ctx, "udp", netip.AddrPortFrom(r.Source, 0).String())
	if err != nil {
		return nil, fmt.Errorf("search for a UPnP router: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	end := time.Now().Add(ssdpWait)
	buf := make([]byte, 4096)
	for round, answers := 0, 0; round < 2; round++ {
		ask(conn, r)
		if err := conn.SetReadDeadline(end.Add(time.Duration(round-1) * ssdpWait / 2)); err != nil {
			return nil, err
		}
		for ctx.Err() == nil && answers < ssdpAnswers {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				break
			}
			answers++
			at, err := netip.ParseAddrPort(from.String())
			if err != nil || !r.trusts(at.Addr()) {
				continue
			}
			if location, err := parseSSDP(buf[:n], r); err == nil {
				return location, nil
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, errNoUPnP
}

// ask sends the questions. What cannot be sent is not answered.
func ask(conn net.PacketConn, r Route) {
	group := "239.255.255.250"
	if r.Source.Is6() {
		group = "ff02::c"
	}
	to := []netip.Addr{r.Gateway, netip.MustParseAddr(group).WithZone(r.Gateway.Zone())}
	for _, version := range []string{"1", "2"} {
		for _, a := range to {
			text := "M-SEARCH * HTTP/1.1\r\nHOST: " + netip.AddrPortFrom(a.WithZone(""), ssdpPort).String() +
				"\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:" + version + "\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\r\n"
			_, _ = conn.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, ssdpPort)))
		}
	}
}

// trusts reports whether an address is the router's. IPv6 routers answer from
// any of their addresses on the link.
func (r Route) trusts(a netip.Addr) bool {
	a = a.Unmap()
	if a.WithZone("") == r.Gateway.WithZone("") {
		return true
	}
	if !a.Is6() || !r.Source.Is6() {
		return false
	}
	return netip.PrefixFrom(r.Source.WithZone(""), 64).Contains(a.WithZone(""))
}

// parseSSDP reads where the router's description is. It has to be at the router:
// we are nobody's means to fetch a page elsewhere.
func parseSSDP(b []byte, r Route) (*url.URL, error) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return nil, fmt.Errorf("parse SSDP answer: %w", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("parse SSDP answer: status %d", resp.StatusCode)
	}
	location, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		return nil, fmt.Errorf("parse SSDP answer: %w", err)
	}
	host, err := netip.ParseAddr(location.Hostname())
	if err != nil || location.Scheme != "http" || location.User != nil || !r.trusts(host) {
		return nil, fmt.Errorf("parse SSDP answer: location %.80q is not at the router", location.String())
	}
	return location, nil
}
