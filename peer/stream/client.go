package stream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// DialTCP opens a TCP connection to HOST:PORT.
type DialTCP func(ctx context.Context, address string) (net.Conn, error)

// Client opens streams over TLS.
type Client struct {
	// Key is the node's Ed25519 key.
	Key ed25519.PrivateKey
	// Chain is its certificate chain, nil before it has joined.
	Chain func(ctx context.Context) []byte
	// Connect opens the TCP connection, through a proxy where there is one.
	Connect DialTCP
}

// errKey says that the server is another than was called.
var errKey = errors.New("somebody else answers there")

// Dial opens a stream to one of the addresses, HOST:PORT each, whichever answers
// first. A server that is to be a member is told by its key; only such a one is
// shown our certificate. With no key anybody will do: who it is, a hello says.
func (c *Client) Dial(ctx context.Context, addresses []string, key ed25519.PublicKey) (io.ReadWriteCloser, error) {
	if len(addresses) == 0 {
		return nil, errors.New("no address")
	}
	type outcome struct {
		conn io.ReadWriteCloser
		err  error
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	outcomes := make(chan outcome, len(addresses))
	for i, address := range addresses {
		go func() {
			select {
			case <-time.After(time.Duration(i) * headStart):
			case <-ctx.Done():
				outcomes <- outcome{nil, ctx.Err()}
				return
			}
			conn, err := c.dial(ctx, address, key)
			outcomes <- outcome{conn, err}
		}()
	}
	var errs []error
	var won io.ReadWriteCloser
	for range addresses { // all: none of the goroutines outlives the call
		o := <-outcomes
		switch {
		case o.err != nil:
			if won == nil {
				errs = append(errs, o.err)
			}
		case won == nil:
			won = o.conn
			cancel()
		default:
			_ = o.conn.Close()
		}
	}
	if won == nil {
		return nil, joined(errs)
	}
	return won, nil
}

// joined is several errors in one line.
func joined(errs []error) error {
	err := errs[0]
	for _, other := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, other)
	}
	return err
}

const (
	// headStart is what each address has before the next one (RFC 8305).
	headStart = 250 * time.Millisecond
	// callTimeout is how long all of them have, proxy and TLS included.
	callTimeout = 10 * time.Second
)

func (c *Client) dial(ctx context.Context, address string, key ed25519.PublicKey) (io.ReadWriteCloser, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	raw, err := c.Connect(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	conn, err := c.upgrade(ctx, raw, host, key)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS to %s: %w", address, err)
	}
	tune(raw)
	return &dialled{conn, address}, nil
}

// upgrade begins TLS, asks for the protocol and waits until it is granted.
func (c *Client) upgrade(ctx context.Context, raw net.Conn, host string, key ed25519.PublicKey) (*buffer, error) {
	known := false
	conn := tls.Client(raw, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         strings.TrimSuffix(host, "."),
		NextProtos:         []string{"h2", "http/1.1"}, // as a web client's
		InsecureSkipVerify: true,                       // by name and authority; the key counts, and what is inside
		VerifyConnection: func(s tls.ConnectionState) error {
			if known = key != nil && bytes.Equal(keyOf(&s), key); key != nil && !known {
				return errKey
			}
			return nil
		},
		// Called when the server has proved its key (RFC 8446, section 2).
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if chain := c.chain(ctx); known && chain != nil {
				return chainOf(chain, c.Key)
			}
			return &tls.Certificate{}, nil
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", hostHeader(host), upgradeTo); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, maxHeader)
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(answer.Header.Get("Upgrade"), upgradeTo) {
		return nil, fmt.Errorf("no node listens there: the server answers %s", answer.Status)
	}
	return &buffer{Conn: conn, r: r}, nil
}

func (c *Client) chain(ctx context.Context) []byte {
	if c.Chain == nil {
		return nil
	}
	return c.Chain(ctx)
}

// hostHeader is a host as it stands in a request.
func hostHeader(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// dialled is an open stream that knows where it was meant to go: the connection's
// own far end may be a proxy.
type dialled struct {
	*buffer
	to string
}

// Describe is what it leads to.
func (d *dialled) Describe() string { return d.to }
