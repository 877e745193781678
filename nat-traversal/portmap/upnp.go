package portmap

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
)

const (
	httpTimeout    = 4 * time.Second
	httpBody       = 256 << 10 // of a description or an answer
	httpHeader     = 16 << 10
	maxConnections = 4 // to the internet, of one router, that are looked at
	triedPorts     = 4 // when other hosts have the first
	description    = "meshd"
	protocolUDP    = "UDP"

	// Error codes of WANIPConnection:2, section 2.5.
	upnpNoSuchEntry   = 714
	upnpConflict      = 718
	upnpOnlyPermanent = 725
)

// upnpClient speaks UPnP.
type upnpClient struct{ prepare control }

// connection is what the services WANIPConnection:1 and :2 and WANPPPConnection:1 have in common.
type connection interface {
	AddPortMappingCtx(ctx context.Context, remote string, external uint16, protocol string, internal uint16, client string, enabled bool, text string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, external uint16, protocol string) error
	GetSpecificPortMappingEntryCtx(ctx context.Context, remote string, external uint16, protocol string) (internal uint16, client string, enabled bool, text string, lease uint32, err error)
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
}

// handle is where a mapping by UPnP was made.
type handle struct {
	connection connection                                // IPv4
	firewall   *internetgateway2.WANIPv6FirewallControl1 // IPv6
	pinhole    uint16
}

func (c upnpClient) probe(ctx context.Context, r Route) error {
	root, at, client, err := c.describe(ctx, r)
	if err != nil {
		return err
	}
	if r.Source.Is6() {
		if len(firewalls(root, at, client)) == 0 {
			return errNoIPv6
		}
		return nil
	}
	if len(connections(root, at, client)) == 0 {
		return errNoUPnP
	}
	return nil
}

// describe fetches the router's description.
func (c upnpClient) describe(ctx context.Context, r Route) (root *goupnp.RootDevice, at *url.URL, client *http.Client, err error) {
	if at, err = search(ctx, r, c.prepare); err != nil {
		return nil, nil, nil, err
	}
	client = c.http(r)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("describe the router: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("describe the router: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, nil, fmt.Errorf("describe the router: status %d", resp.StatusCode)
	}
	root, err = parseDescription(resp.Body, at)
	return root, at, client, err
}

// parseDescription reads a device description. The library's parser of the rest
// is given no chance to crash us.
func parseDescription(r io.Reader, at *url.URL) (root *goupnp.RootDevice, err error) {
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, fmt.Errorf("parse the router's description: %v", p)
		}
	}()
	root = new(goupnp.RootDevice)
	d := xml.NewDecoder(r)
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	if err := d.Decode(root); err != nil {
		return nil, fmt.Errorf("parse the router's description: %w", err)
	}
	base := at
	if u, err := url.Parse(root.URLBaseStr); err == nil && root.URLBaseStr != "" && u.Scheme == "http" {
		base = u
	}
	root.SetURLBase(base)
	return root, nil
}

// http is a client that reaches the router and nobody else, from our address.
func (c upnpClient) http(r Route) *http.Client {
	dialer := &net.Dialer{Control: c.prepare, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.Source, 0))}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil || !r.trusts(to.Addr()) {
			return nil, fmt.Errorf("the router refers to %.80q, which is not the router", address)
		}
		if to.Addr().IsLinkLocalUnicast() && to.Addr().Is6() {
			to = netip.AddrPortFrom(to.Addr().WithZone(r.Gateway.Zone()), to.Port())
		}
		return dialer.DialContext(ctx, network, to.String())
	}
	return &http.Client{
		Timeout:       httpTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: bounded{&http.Transport{
			Proxy: nil, DialContext: dial, DisableKeepAlives: true, MaxResponseHeaderBytes: httpHeader, DisableCompression: true,
		}},
	}
}

// bounded cuts what is longer than any honest answer.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, httpBody), resp.Body}
	}
	return resp, err
}

// connections are the router's ways to the internet, the newest kind first.
func connections(root *goupnp.RootDevice, at *url.URL, client *http.Client) (list []connection) {
	add := func(s *soap.SOAPClient, c connection) {
		if s.HTTPClient = *client; len(list) < maxConnections {
			list = append(list, c)
		}
	}
	ip2, _ := internetgateway2.NewWANIPConnection2ClientsFromRootDevice(root, at)
	for _, c := range ip2 {
		add(c.SOAPClient, c)
	}
	ip1, _ := internetgateway2.NewWANIPConnection1ClientsFromRootDevice(root, at)
	for _, c := range ip1 {
		add(c.SOAPClient, c)
	}
	ppp, _ := internetgateway2.NewWANPPPConnection1ClientsFromRootDevice(root, at)
	for _, c := range ppp {
		add(c.SOAPClient, c)
	}
	return list
}

func firewalls(root *goupnp.RootDevice, at *url.URL, client *http.Client) []*internetgateway2.WANIPv6FirewallControl1 {
	list, _ := internetgateway2.NewWANIPv6FirewallControl1ClientsFromRootDevice(root, at)
	for _, c := range list {
		c.SOAPClient.HTTPClient = *client
	}
	return list[:min(len(list), maxConnections)]
}

func (c upnpClient) open(ctx context.Context, r Route, port uint16, suggested netip.AddrPort) (*Mapping, error) {
	root, at, client, err := c.describe(ctx, r)
	if err != nil {
		return nil, err
	}
	inner := netip.AddrPortFrom(r.Source, port)
	m := &Mapping{Protocol: UPnP, Gateway: r.Gateway, Internal: inner}
	err = errNoUPnP
	if r.Source.Is6() {
		for _, f := range firewalls(root, at, client) {
			if err = m.pierce(ctx, f); err == nil {
				return m, m.validate()
			}
		}
		return nil, upnpError(err)
	}
	for _, c := range connections(root, at, client) {
		if err = m.forward(ctx, c, suggest(suggested, port).Port()); err == nil {
			return m, m.validate()
		}
	}
	return nil, upnpError(err)
}

// pierce opens a pinhole in an IPv6 firewall.
func (m *Mapping) pierce(ctx context.Context, f *internetgateway2.WANIPv6FirewallControl1) error {
	id, err := f.AddPinholeCtx(ctx, "", 0, m.Internal.Addr().String(), m.Internal.Port(), pcpUDP, uint32(wanted/time.Second))
	if err != nil {
		return err
	}
	m.External, m.Lifetime = m.Internal, wanted
	m.handle = handle{firewall: f, pinhole: id}
	return nil
}

// forward opens a port, another one where the first belongs to somebody else.
func (m *Mapping) forward(ctx context.Context, c connection, port uint16) error {
	text, err := c.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return err
	}
	external, err := netip.ParseAddr(text)
	if err != nil {
		return errBadGrant
	}
	lease := uint32(wanted / time.Second)
	for range triedPorts {
		err = m.take(ctx, c, port, lease)
		if code := errorCode(err); code == upnpOnlyPermanent && lease != 0 {
			lease = 0
			err = m.take(ctx, c, port, lease)
		}
		if code := errorCode(err); err == nil || code != upnpConflict {
			break
		}
		port = uint16(20000 + rand.IntN(40000))
	}
	if err != nil {
		return err
	}
	m.External = netip.AddrPortFrom(external, port)
	m.Lifetime = time.Duration(lease) * time.Second
	m.handle = handle{connection: c}
	return nil
}

// take opens this port, unless another host has it: some routers would give it to
// us all the same.
func (m *Mapping) take(ctx context.Context, c connection, port uint16, lease uint32) error {
	_, owner, _, _, _, err := c.GetSpecificPortMappingEntryCtx(ctx, "", port, protocolUDP)
	if err == nil && owner != m.Internal.Addr().String() {
		return &ResultError{Protocol: UPnP, Code: upnpConflict, Text: "another host has the port"}
	}
	return c.AddPortMappingCtx(ctx, "", port, protocolUDP, m.Internal.Port(), m.Internal.Addr().String(), true, description, lease)
}

func (upnpClient) check(ctx context.Context, _ Route, m *Mapping) (bool, error) {
	if m.handle.firewall != nil {
		_, allowed, err := m.handle.firewall.GetFirewallStatusCtx(ctx)
		return err == nil && !allowed, upnpError(err)
	}
	text, err := m.handle.connection.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return false, upnpError(err)
	}
	if external, err := netip.ParseAddr(text); err != nil || external != m.External.Addr() {
		return true, nil
	}
	port, owner, _, _, _, err := m.handle.connection.GetSpecificPortMappingEntryCtx(ctx, "", m.External.Port(), protocolUDP)
	if errorCode(err) == upnpNoSuchEntry {
		return true, nil
	}
	return err == nil && (owner != m.Internal.Addr().String() || port != m.Internal.Port()), upnpError(err)
}

func (upnpClient) remove(ctx context.Context, _ Route, m *Mapping) error {
	if m.handle.firewall != nil {
		return upnpError(m.handle.firewall.DeletePinholeCtx(ctx, m.handle.pinhole))
	}
	return upnpError(m.handle.connection.DeletePortMappingCtx(ctx, "", m.External.Port(), protocolUDP))
}

// errorCode is UPnP's code in an error; 0 if there is none.
func errorCode(err error) int {
	if f := (*soap.SOAPFaultError)(nil); errors.As(err, &f) {
		return f.Detail.UPnPError.Errorcode
	}
	if e := (*ResultError)(nil); errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// upnpError is err without what the router may have put into it at length.
func upnpError(err error) error {
	if f := (*soap.SOAPFaultError)(nil); errors.As(err, &f) {
		return &ResultError{Protocol: UPnP, Code: f.Detail.UPnPError.Errorcode, Text: fmt.Sprintf("%.80q", f.Detail.UPnPError.ErrorDescription)}
	}
	return err
}
