package names

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	resolvedName    = "org.freedesktop.resolve1"
	resolvedPath    = dbus.ObjectPath("/org/freedesktop/resolve1")
	resolvedManager = "org.freedesktop.resolve1.Manager."
	busName         = "org.freedesktop.DBus"
	// callTimeout bounds one call; resolved answers in milliseconds.
	callTimeout = 5 * time.Second
)

// linkDNS is the (iayqs) of SetLinkDNSEx: family, address, port, server name for TLS.
type linkDNS struct {
	Family  int32
	Address []byte
	Port    uint16
	Name    string
}

// linkDomain is the (sb) of SetLinkDomains; routing only means "ask here for it, do not append it to names".
type linkDomain struct {
	Domain      string
	RoutingOnly bool
}

// Registration is a link's routing of the zone to our server, at systemd-resolved.
type Registration struct {
	conn    *dbus.Conn
	ifindex int
	server  netip.AddrPort
	domains []string
}

// Register routes mesh.internal (and other domains, if given) to server for the interface, at systemd-resolved. It returns an error that is
// [ErrNoResolved] where that does not run. [Registration.Run] keeps it, [Registration.Close] ends it.
func Register(ctx context.Context, ifindex int, server netip.AddrPort, domains ...string) (*Registration, error) {
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return nil, fmt.Errorf("%w: connect to the system bus: %w", ErrNoResolved, err)
	}
	return register(ctx, conn, ifindex, server, domains)
}

// register does so over a connection, which it takes over.
func register(ctx context.Context, conn *dbus.Conn, ifindex int, server netip.AddrPort, domains []string) (*Registration, error) {
	r := &Registration{conn: conn, ifindex: ifindex, server: server, domains: append([]string{Domain}, domains...)}
	if err := r.apply(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return r, nil
}

// apply tells resolved. It may be repeated.
func (r *Registration) apply(ctx context.Context) error {
	family := int32(syscall.AF_INET6)
	if r.server.Addr().Is4() {
		family = syscall.AF_INET
	}
	dns := []linkDNS{{Family: family, Address: r.server.Addr().AsSlice(), Port: r.server.Port()}}
	if err := r.call(ctx, "SetLinkDNSEx", int32(r.ifindex), dns); err != nil {
		return err
	}
	var domains []linkDomain
	for _, d := range r.domains {
		domains = append(domains, linkDomain{Domain: d, RoutingOnly: true})
	}
	if err := r.call(ctx, "SetLinkDomains", int32(r.ifindex), domains); err != nil {
		return errors.Join(err, r.revert(ctx))
	}
	// The zone is not signed and cannot be. What resolved is too old to know of these does no harm.
	_ = r.call(ctx, "SetLinkDNSSEC", int32(r.ifindex), "no")
	_ = r.call(ctx, "SetLinkDNSOverTLS", int32(r.ifindex), "no")
	_ = r.call(ctx, "SetLinkDefaultRoute", int32(r.ifindex), false)
	return nil
}

// call calls a method of resolved's manager, without starting resolved for it.
func (r *Registration) call(ctx context.Context, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := r.conn.Object(resolvedName, resolvedPath).
		CallWithContext(ctx, resolvedManager+method, dbus.FlagNoAutoStart, args...).Err
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[dbus.Error](err); ok {
		switch e.Name {
		case busName + ".Error.ServiceUnknown", busName + ".Error.NameHasNoOwner":
			return fmt.Errorf("%w: %w", ErrNoResolved, err)
		}
	}
	return fmt.Errorf("systemd-resolved: %s: %w", method, err)
}

// revert takes back all that was said about the link.
func (r *Registration) revert(ctx context.Context) error {
	err := r.call(ctx, "RevertLink", int32(r.ifindex))
	if e, ok := errors.AsType[dbus.Error](err); ok && e.Name == resolvedName+".NoSuchLink" {
		return nil
	}
	return err
}

// Run keeps the registration when resolved restarts, until ctx ends; then it takes it back. It returns nil then, and an
// error if the bus goes away, after which nothing is registered any more.
func (r *Registration) Run(ctx context.Context) error {
	changes := make(chan *dbus.Signal, 16)
	r.conn.Signal(changes)
	defer r.conn.RemoveSignal(changes)
	err := r.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(busName), dbus.WithMatchSender(busName),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, resolvedName))
	if err != nil {
		return errors.Join(fmt.Errorf("watch systemd-resolved: %w", err), r.Close())
	}
	for {
		select {
		case <-ctx.Done():
			return r.Close()
		case <-r.conn.Context().Done():
			return errors.New("watch systemd-resolved: the system bus has gone")
		case s := <-changes:
			if !resolvedStarted(s) {
				continue
			}
			if err := r.apply(ctx); err != nil && ctx.Err() == nil {
				return errors.Join(err, r.Close())
			}
		}
	}
}

// resolvedStarted reports whether a signal says that resolved has a new owner.
func resolvedStarted(s *dbus.Signal) bool {
	if s == nil || len(s.Body) != 3 {
		return false
	}
	name, _ := s.Body[0].(string)
	owner, _ := s.Body[2].(string)
	return name == resolvedName && owner != ""
}

// Close takes the registration back. Once [Registration.Run] has returned it does nothing.
func (r *Registration) Close() error {
	if !r.conn.Connected() {
		return nil
	}
	err := r.revert(context.Background())
	r.conn.Close()
	if errors.Is(err, ErrNoResolved) {
		return nil
	}
	return err
}
