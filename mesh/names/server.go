package names

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

const (
	// DefaultPort is where the server is, if the port is free.
	DefaultPort = 5383
	// maxUDPSize is the most that one UDP answer carries, by the recommendation of DNS flag day 2020.
	maxUDPSize = 1232
	// maxTCP is how many connections are served at once, maxTCPQueries how many queries on each.
	maxTCP        = 16
	maxTCPQueries = 128
	tcpTimeout    = 5 * time.Second
	// portTries is how often a port is looked for that is free for both UDP and TCP.
	portTries = 16
	// shutdownTimeout bounds the wait for answers under way.
	shutdownTimeout = time.Second
)

// Config is what a server needs.
type Config struct {
	// Addr is a loopback address and port; the zero value means 127.0.0.1:5383, or a free port where that is taken.
	Addr netip.AddrPort
	// Logger gets what an operator would act on; nil means nobody.
	Logger *slog.Logger
}

// Server answers DNS queries of this host for the names of members.
type Server struct {
	udp    net.PacketConn
	tcp    net.Listener
	addr   netip.AddrPort
	log    *slog.Logger
	zone   atomic.Pointer[zone]
	serial atomic.Uint32
}

// Listen takes the server's ports. It knows no names yet.
func Listen(c Config) (*Server, error) {
	s := &Server{log: c.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.SetNames(nil)
	want := c.Addr
	if !want.IsValid() {
		want = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), DefaultPort)
	}
	if !want.Addr().IsLoopback() {
		return nil, fmt.Errorf("listen for names at %v: not a loopback address", want)
	}
	err := s.listen(want)
	if err != nil && !c.Addr.IsValid() {
		s.log.Info("name server's port is taken, using another", "port", DefaultPort, "err", err)
		err = s.listen(netip.AddrPortFrom(want.Addr(), 0))
	}
	if err != nil {
		return nil, fmt.Errorf("listen for names at %v: %w", want, err)
	}
	return s, nil
}

// listen takes one port for both UDP and TCP; port 0 means any that is free for both.
func (s *Server) listen(want netip.AddrPort) error {
	tries := 1
	if want.Port() == 0 {
		tries = portTries
	}
	var err error
	for range tries {
		if err = s.listenOnce(want); err == nil {
			return nil
		}
	}
	return err
}

func (s *Server) listenOnce(want netip.AddrPort) error {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(want))
	if err != nil {
		return err
	}
	addr := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		udp.Close()
		return err
	}
	s.udp, s.tcp, s.addr = udp, netutil.LimitListener(tcp, maxTCP), addr
	return nil
}

// Addr is where the server answers.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// SetNames replaces all names, each a label without the domain. It copies them.
func (s *Server) SetNames(names map[string][]netip.Addr) {
	s.zone.Store(newZone(s.serial.Add(1), names))
}

// Run answers until ctx ends, gives the ports back and returns nil.
func (s *Server) Run(ctx context.Context) error {
	udp := &dns.Server{PacketConn: s.udp, Handler: dns.HandlerFunc(s.serve), UDPSize: maxUDPSize}
	tcp := &dns.Server{
		Listener: s.tcp, Handler: dns.HandlerFunc(s.serve), MaxTCPQueries: maxTCPQueries,
		ReadTimeout: tcpTimeout, WriteTimeout: tcpTimeout, IdleTimeout: func() time.Duration { return tcpTimeout },
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, srv := range []*dns.Server{udp, tcp} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		ended := make(chan struct{})
		g.Go(func() error {
			defer close(ended)
			if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("answer names: %w", err)
			}
			return nil
		})
		g.Go(func() error {
			select {
			case <-started:
			case <-ended:
				return nil
			}
			<-ctx.Done()
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer cancel()
			_ = srv.ShutdownContext(grace)
			return nil
		})
	}
	return g.Wait()
}

// Close gives the ports back. It is for a server that never ran; after Run, which does so itself, it does nothing.
func (s *Server) Close() error {
	return errors.Join(closed(s.udp.Close()), closed(s.tcp.Close()))
}

// serve answers one query.
func (s *Server) serve(w dns.ResponseWriter, query *dns.Msg) {
	m := s.zone.Load().answer(query)
	if _, ok := w.RemoteAddr().(*net.UDPAddr); ok {
		size := dns.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDPSize)
		}
		m.Truncate(size)
	}
	if err := w.WriteMsg(m); err != nil {
		s.log.Debug("answer name query", "err", err)
	}
}

// closed passes over that something was closed before.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
