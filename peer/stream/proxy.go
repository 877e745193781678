package stream

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

// ProxyFor returns the proxy for HOST:PORT, nil for none.
type ProxyFor func(address string) (*url.URL, error)

// Environment reads which proxies to use from HTTPS_PROXY, ALL_PROXY and
// NO_PROXY, in upper or lower case, as other programs do.
func Environment(getenv func(string) string) ProxyFor {
	first := func(names ...string) string {
		for _, name := range names {
			if v := getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	cfg := httpproxy.Config{
		HTTPSProxy: first("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"),
		NoProxy:    first("NO_PROXY", "no_proxy"),
	}
	lookup := cfg.ProxyFunc()
	return func(address string) (*url.URL, error) {
		return lookup(&url.URL{Scheme: "https", Host: address})
	}
}

// Through connects through the proxies that lookup names, and directly where it
// names none.
func Through(lookup ProxyFor, direct DialTCP) DialTCP {
	return func(ctx context.Context, address string) (net.Conn, error) {
		by, err := lookup(address)
		if err != nil {
			return nil, fmt.Errorf("read the proxy's address: %w", err)
		}
		if by == nil {
			return direct(ctx, address)
		}
		conn, err := through(ctx, by, address, direct)
		if err != nil {
			return nil, fmt.Errorf("proxy %s: %w", by.Host, err) // not the URL, which may have a password
		}
		return conn, nil
	}
}

func through(ctx context.Context, by *url.URL, address string, direct DialTCP) (net.Conn, error) {
	switch by.Scheme {
	case "http", "https":
		return connectHTTP(ctx, by, address, direct)
	case "socks5", "socks5h":
		var auth *proxy.Auth
		if by.User != nil {
			password, _ := by.User.Password()
			auth = &proxy.Auth{User: by.User.Username(), Password: password}
		}
		d, err := proxy.SOCKS5("tcp", withPort(by, "1080"), auth, forward(direct))
		if err != nil {
			return nil, err
		}
		return d.(proxy.ContextDialer).DialContext(ctx, "tcp", address)
	}
	return nil, fmt.Errorf("%q proxies are not supported", by.Scheme)
}

// forward makes a dialer of x/net/proxy of a function.
type forward DialTCP

// Dial implements proxy.Dialer; it is not called.
func (f forward) Dial(_, address string) (net.Conn, error) { return f(context.Background(), address) }

// DialContext implements proxy.ContextDialer.
func (f forward) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	return f(ctx, address)
}

// connectHTTP asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6).
func connectHTTP(ctx context.Context, by *url.URL, address string, direct DialTCP) (net.Conn, error) {
	port := "80"
	if by.Scheme == "https" {
		port = "443"
	}
	conn, err := direct(ctx, withPort(by, port))
	if err != nil {
		return nil, err
	}
	if by.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: by.Hostname()})
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	tunnel, err := askHTTP(conn, by, address)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tunnel, nil
}

func askHTTP(conn net.Conn, by *url.URL, address string) (net.Conn, error) {
	var ask strings.Builder
	fmt.Fprintf(&ask, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", address, address)
	if by.User != nil {
		password, _ := by.User.Password()
		pair := base64.StdEncoding.EncodeToString([]byte(by.User.Username() + ":" + password))
		fmt.Fprintf(&ask, "Proxy-Authorization: Basic %s\r\n", pair)
	}
	ask.WriteString("\r\n")
	if _, err := conn.Write([]byte(ask.String())); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, maxHeader)
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("it answers %s", answer.Status)
	}
	return &buffer{Conn: conn, r: r}, nil
}

func withPort(u *url.URL, port string) string {
	if u.Port() != "" {
		port = u.Port()
	}
	return net.JoinHostPort(u.Hostname(), port)
}
