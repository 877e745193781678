package outside

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

const (
	portalTime = 3 * time.Second
	portalSize = 16 << 10 // of an answer that is read
)

// FindPortal asks port 80 of an address at which a member was reached, where as a
// rule nobody listens. Somebody who sends us elsewhere from there is a captive
// portal (RFC 8952); its host is returned, empty for none.
func FindPortal(ctx context.Context, dial func(ctx context.Context, address string) (net.Conn, error), member netip.Addr) string {
	ctx, cancel := context.WithTimeout(ctx, portalTime)
	defer cancel()
	conn, err := dial(ctx, netip.AddrPortFrom(member, 80).String())
	if err != nil {
		return ""
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	host := netip.AddrPortFrom(member, 80).String()
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host); err != nil {
		return ""
	}
	return portalIn(io.LimitReader(conn, portalSize), member)
}

// portalIn reads an HTTP answer: to be sent to another host, or to be told that a
// network wants to know who we are (RFC 6585), is a portal's.
func portalIn(r io.Reader, member netip.Addr) string {
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return ""
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusNetworkAuthenticationRequired {
		return member.String()
	}
	if resp.StatusCode < 300 || resp.StatusCode > 399 {
		return ""
	}
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || to.Hostname() == "" || to.Hostname() == member.String() || len(to.Host) > 253 {
		return ""
	}
	return to.Host
}
