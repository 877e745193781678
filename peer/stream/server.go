package stream

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"meshd/peer/way"
)

const (
	// upgradeTo is the protocol that a node asks for (RFC 9110, section 7.8).
	upgradeTo = "meshd/1"
	// visitors bounds the connections on which nobody has asked for that yet.
	visitors          = 128
	visitorsPerSource = 16
	visitorPatience   = 500 * time.Millisecond
	// visitTimeout is how long TLS and a request's header may take, visitIdle how
	// long a connection may rest after an answer.
	visitTimeout = 5 * time.Second
	visitIdle    = 10 * time.Second
	maxHeader    = 8 << 10
)

// Server takes streams over TLS: mutually authenticated between members, and
// from strangers, who have only a hello to say. To everybody else it is a web
// server that has nothing for them.
type Server struct {
	// Key is the node's Ed25519 key.
	Key ed25519.PrivateKey
	// Verify judges a certificate chain, node DER ‖ signer DER, and returns the
	// member's key.
	Verify  func(chain []byte) (ed25519.PublicKey, error)
	Carrier *Carrier
	Log     *slog.Logger
}

// Run serves at l until ctx ends. Streams that were taken stay with the carrier.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	certificates, err := serverCertificates(s.Key, time.Now())
	if err != nil {
		return errors.Join(err, l.Close())
	}
	door := newDoor(l)
	srv := &http.Server{
		Handler: http.HandlerFunc(s.serve),
		TLSConfig: &tls.Config{
			MinVersion:             tls.VersionTLS13,
			Certificates:           certificates,
			NextProtos:             []string{"http/1.1"},
			ClientAuth:             tls.RequestClientCert,
			VerifyConnection:       s.verify,
			SessionTicketsDisabled: true,
		},
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/2 cannot be upgraded
		ReadHeaderTimeout: visitTimeout,
		ReadTimeout:       visitTimeout,
		WriteTimeout:      visitTimeout,
		IdleTimeout:       visitIdle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ServeTLS(door, "", ""); ctx.Err() == nil {
		return fmt.Errorf("serve TLS at %v: %w", l.Addr(), err)
	}
	return nil
}

// verify refuses a certificate that is not a member's; to show none is allowed.
func (s *Server) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	_, err := s.member(&state)
	return err
}

// member is the key of the member at the other end, nil for a stranger.
func (s *Server) member(state *tls.ConnectionState) (ed25519.PublicKey, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, nil
	}
	var chain []byte
	for _, c := range state.PeerCertificates {
		chain = append(chain, c.Raw...)
	}
	key, err := s.Verify(chain)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(key, keyOf(state)) {
		return nil, errors.New("the certificate is of another key")
	}
	return key, nil
}

// serve answers a request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || !strings.EqualFold(r.Header.Get("Upgrade"), upgradeTo) || r.TLS == nil {
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	key, err := s.member(r.TLS)
	if err != nil {
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(visitTimeout))
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+upgradeTo+"\r\n\r\n"); err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	if v, ok := conn.(*tls.Conn).NetConn().(*visitor); ok {
		v.leave() // the carrier counts it from here
		tune(v.Conn)
	}
	from := Caller{Name: r.RemoteAddr, Key: key}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		from.Source = a.Addr()
	}
	_ = s.Carrier.Accept(&buffer{Conn: conn, r: buffered.Reader}, from)
}

// buffer is a connection of which something has been read ahead.
type buffer struct {
	net.Conn
	r interface {
		io.Reader
		Buffered() int
	}
}

// Read implements io.Reader.
func (b *buffer) Read(p []byte) (int, error) {
	if b.r != nil {
		if b.r.Buffered() > 0 {
			return b.r.Read(p[:min(len(p), b.r.Buffered())])
		}
		b.r = nil
	}
	return b.Conn.Read(p)
}

// Close ends the connection at once: whoever does not read would keep TLS from
// saying goodbye for seconds.
func (b *buffer) Close() error {
	if t, ok := b.Conn.(*tls.Conn); ok {
		return t.NetConn().Close()
	}
	return b.Conn.Close()
}

// door is the listener: it counts who has come in and not yet said what for.
type door struct {
	net.Listener
	mu     sync.Mutex
	gate   gate
	inside map[uint64]*visitor
}

func newDoor(l net.Listener) *door {
	return &door{
		Listener: l,
		gate:     gate{limit: visitors, perSource: visitorsPerSource, patience: visitorPatience},
		inside:   map[uint64]*visitor{},
	}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if v := d.admit(c); v != nil {
			return v, nil
		}
		_ = c.Close()
	}
}

func (d *door) admit(c net.Conn) *visitor {
	var source netip.Addr
	if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		source = a.Addr()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id, evicted, ok := d.gate.enter(way.Source(source), time.Now())
	if !ok {
		return nil
	}
	if old := d.inside[evicted]; old != nil {
		delete(d.inside, evicted)
		go old.Conn.Close() // which may wait for a lock of its writer's
	}
	v := &visitor{Conn: c, door: d, id: id}
	d.inside[id] = v
	return v
}

// visitor is a connection that is counted.
type visitor struct {
	net.Conn
	door *door
	id   uint64
}

// leave takes it off the count.
func (v *visitor) leave() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	v.door.gate.leave(v.id)
	delete(v.door.inside, v.id)
}

// Close implements net.Conn.
func (v *visitor) Close() error {
	v.leave()
	return v.Conn.Close()
}
