package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Streamer is a [Node] that takes streams of datagrams, as `meshd stdio` brings
// them from a node at the other end of an ssh connection.
type Streamer interface {
	// Stream carries until the stream ends, and closes it. from says where the
	// other end says it comes from; it may be empty.
	Stream(conn io.ReadWriteCloser, from string) error
}

// Plugger is a [Node] whose segment takes cables, as `meshd plug` brings them.
type Plugger interface {
	// Plug carries Ethernet frames, in the framing of vde_plug, until the stream
	// ends, and closes it.
	Plug(conn io.ReadWriteCloser) error
}

// What the request for a stream, and for a plug, asks for; fromHeader in the former
// says where the ssh connection comes from.
const (
	streamProtocol = "meshd/1"
	plugProtocol   = "vde_plug"
	fromHeader     = "Meshd-From"
)

// stream turns the connection into a stream. Who may read may open one: it brings
// what any stranger may send by UDP.
func (s *server) stream(w http.ResponseWriter, r *http.Request) error {
	to, ok := s.node.(Streamer)
	if !ok {
		return &Error{Code: CodeFailed, What: "stream", Why: "this daemon takes no streams"}
	}
	from := ""
	if a, err := netip.ParseAddr(r.Header.Get(fromHeader)); err == nil {
		from = a.String()
	}
	return s.upgrade(w, r, "stream", streamProtocol, func(conn io.ReadWriteCloser) error { return to.Stream(conn, from) })
}

// plug turns the connection into a cable. Who may change things may plug in: it
// speaks on the segment.
func (s *server) plug(w http.ResponseWriter, r *http.Request) error {
	to, ok := s.node.(Plugger)
	if !ok {
		return &Error{Code: CodeFailed, What: "plug", Why: "this daemon has no segment"}
	}
	return s.upgrade(w, r, "plug", plugProtocol, to.Plug)
}

// upgrade hands the connection of a request to serve.
func (s *server) upgrade(w http.ResponseWriter, r *http.Request, what, protocol string, serve func(io.ReadWriteCloser) error) error {
	if r.Header.Get("Upgrade") != protocol {
		return &Error{Code: CodeFailed, What: what, Why: "the request is for another protocol than " + protocol}
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return &Error{Code: CodeFailed, What: what, Why: err.Error()}
	}
	_ = conn.SetDeadline(time.Now().Add(writeTimeout))
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n"); err != nil {
		conn.Close()
		return nil
	}
	_ = conn.SetDeadline(time.Time{})
	if c, ok := conn.(*limitedConn); ok {
		c.release()
	}
	if err := serve(readAhead{conn, buffered.Reader}); err != nil {
		s.log.Debug(what+" of the control socket ended", "err", err)
	}
	return nil
}

// readAhead is a connection of which something may have been read already.
type readAhead struct {
	net.Conn
	r *bufio.Reader
}

// Read implements io.Reader.
func (c readAhead) Read(b []byte) (int, error) { return c.r.Read(b) }

// Stream opens a stream to the daemon. from is the IP address at the other end, if
// it is known. The caller closes it.
func (c *Client) Stream(ctx context.Context, from string) (io.ReadWriteCloser, error) {
	return c.open(ctx, "stream", streamProtocol, from)
}

// Plug plugs a cable into the daemon's segment: frames in the framing of vde_plug.
// The caller closes it.
func (c *Client) Plug(ctx context.Context) (io.ReadWriteCloser, error) {
	return c.open(ctx, "plug", plugProtocol, "")
}

// open asks for what has a connection of its own.
func (c *Client) open(ctx context.Context, what, protocol, from string) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, c.fault(ctx, what, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	opened, err := c.upgrade(ctx, conn, what, protocol, from)
	if !stop() && err == nil {
		err = c.fault(ctx, what, ctx.Err())
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return opened, nil
}

func (c *Client) upgrade(ctx context.Context, conn net.Conn, what, protocol, from string) (io.ReadWriteCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/v1/"+what, http.NoBody)
	if err != nil {
		return nil, c.fault(ctx, what, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", protocol)
	if from != "" {
		r.Header.Set(fromHeader, from)
	}
	if err := r.Write(conn); err != nil {
		return nil, c.fault(ctx, what, err)
	}
	buffered := bufio.NewReader(conn)
	answer, err := http.ReadResponse(buffered, r)
	if err != nil {
		return nil, c.fault(ctx, what, err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		if err := c.receive(ctx, what, answer, nil); err != nil {
			return nil, err
		}
		return nil, c.fault(ctx, what, fmt.Errorf("the daemon answers %s", answer.Status))
	}
	return readAhead{conn, buffered}, nil
}
