package api

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// maxConns is how many connections the control socket serves at once.
	maxConns = 32
	// maxReaderConns is how many of them those may hold who may only read, so that they cannot keep the owner out.
	maxReaderConns = 24
	// turnAwayTimeout bounds what one connection too many may cost; a fresh socket's buffer takes the answer at once.
	turnAwayTimeout = 100 * time.Millisecond
)

// limiter is a listener that notes each connection's rights as it is made and closes those beyond the limits.
type limiter struct {
	net.Listener
	owner, group int

	mu             sync.Mutex
	total, readers int
}

// newLimiter wraps a control socket that belongs to this process.
func newLimiter(l net.Listener) *limiter {
	return &limiter{Listener: l, owner: os.Geteuid(), group: socketGID(l.Addr().String())}
}

// Accept returns the next connection that is within the limits.
func (l *limiter) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		r := l.rightsOf(c)
		if l.take(r) {
			return &limitedConn{Conn: c, rights: r, limiter: l}, nil
		}
		turnAway(c)
	}
}

// turnAway tells one connection too many that it is so, without waiting for it.
func turnAway(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(turnAwayTimeout))
	_, _ = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"+
		`{"error":{"code":"busy","what":"connect","why":"too many commands ask at once","remedy":"try again"}}`+"\n")
	c.Close()
}

// rightsOf is what the other end may do here; whoever is not known to be allowed may do nothing.
func (l *limiter) rightsOf(c net.Conn) rights {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return mayNothing
	}
	cred, err := peerCredential(uc)
	if err != nil {
		return mayNothing
	}
	return rightsOf(cred, l.owner, l.group)
}

// take counts a connection, unless it would be one too many.
func (l *limiter) take(r rights) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConns || (r < mayChange && l.readers >= maxReaderConns) {
		return false
	}
	l.total++
	if r < mayChange {
		l.readers++
	}
	return true
}

// give takes it off the count again.
func (l *limiter) give(r rights) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if r < mayChange {
		l.readers--
	}
}

// limitedConn is a counted connection with the rights of its other end.
type limitedConn struct {
	net.Conn
	rights  rights
	limiter *limiter
	once    sync.Once
}

// Close closes the connection and makes room for another.
func (c *limitedConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// release makes room for another: somebody else counts this one from now on.
func (c *limitedConn) release() { c.once.Do(func() { c.limiter.give(c.rights) }) }
