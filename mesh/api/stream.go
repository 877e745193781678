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

// streamProtocol is what the request for a stream asks for; fromHeader in it says
// where the ssh connection comes from.
const (
	streamProtocol = "meshd/1"
	fromHeader     = "Meshd-From"
)

// stream turns the connection into a stream. Who may read may open one: it brings
// what any stranger may send by UDP.
func (s *server) stream(w http.ResponseWriter, r *http.Request) error {
	to, ok := s.node.(Streamer)
	if !ok || r.Header.Get("Upgrade") != streamProtocol {
		return &Error{Code: CodeFailed, What: "stream", Why: "this daemon takes no streams"}
	}
	from := ""
	if a, err := netip.ParseAddr(r.Header.Get(fromHeader)); err == nil {
		from = a.String()
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return &Error{Code: CodeFailed, What: "stream", Why: err.Error()}
	}
	_ = conn.SetDeadline(time.Now().Add(writeTimeout))
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+streamProtocol+"\r\n\r\n"); err != nil {
		conn.Close()
		return nil
	}
	_ = conn.SetDeadline(time.Time{})
	if c, ok := conn.(*limitedConn); ok {
		c.release()
	}
	if err := to.Stream(readAhead{conn, buffered.Reader}, from); err != nil {
		s.log.Debug("stream of the control socket ended", "from", from, "err", err)
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
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, c.fault(ctx, "stream", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	opened, err := c.upgrade(ctx, conn, from)
	if !stop() && err == nil {
		err = c.fault(ctx, "stream", ctx.Err())
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return opened, nil
}

func (c *Client) upgrade(ctx context.Context, conn net.Conn, from string) (io.ReadWriteCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/v1/stream", http.NoBody)
	if err != nil {
		return nil, c.fault(ctx, "stream", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", streamProtocol)
	if from != "" {
		r.Header.Set(fromHeader, from)
	}
	if err := r.Write(conn); err != nil {
		return nil, c.fault(ctx, "stream", err)
	}
	buffered := bufio.NewReader(conn)
	answer, err := http.ReadResponse(buffered, r)
	if err != nil {
		return nil, c.fault(ctx, "stream", err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		if err := c.receive(ctx, "stream", answer, nil); err != nil {
			return nil, err
		}
		return nil, c.fault(ctx, "stream", fmt.Errorf("the daemon answers %s", answer.Status))
	}
	return readAhead{conn, buffered}, nil
}
