//go:build linux

package lab

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"time"
)

var errStub = errors.New("lab: not built yet")

// Options of a lab.
type Options struct {
	Name string                           // for log lines and host names; "lab" if empty
	Logf func(format string, args ...any) // may be nil
}

// Lab is a set of isolated internets.
type Lab struct{}

// New makes an empty lab.
func New(opts Options) (*Lab, error) { return nil, errStub }

// Close ends every process in the lab and removes all of it.
func (l *Lab) Close() error { return nil }

// Ready waits until every link carries frames and returns the first error of building.
func (l *Lab) Ready(ctx context.Context) error { return errStub }

// Internet makes an isolated layer 3 core.
func (l *Lab) Internet(name string) *Network { return nil }

// Network is an internet: a core router that sites and hosts are connected to.
type Network struct{}

// Site connects a router with a LAN behind it.
func (n *Network) Site(name string, cfg SiteConfig) *Site { return nil }

// Host connects a host with public addresses.
func (n *Network) Host(name string, cfg HostConfig) *Host { return nil }

// SetName makes a name resolve to addrs on every host; without addrs, to nothing.
func (n *Network) SetName(name string, addrs ...netip.Addr) {}

// NAT is what a site's router does to IPv4.
type NAT int

// The kinds of NAT, in the terms of RFC 4787.
const (
	None              NAT = iota // public addresses on the LAN
	Home                         // endpoint-independent mapping to another port, port-dependent filtering: the ordinary home router
	HomePortKept                 // the same, and the port is kept where it is free
	FullCone                     // endpoint-independent mapping and filtering
	AddressRestricted            // endpoint-independent mapping, address-dependent filtering
	Symmetric                    // address- and port-dependent mapping and filtering
	CGNAT                        // Home behind another Home, 100.64.0.0/10 between
)

// SiteConfig says what a site is. Without V4 and V6 it has both.
type SiteConfig struct {
	NAT    NAT
	V4, V6 bool
	Link   Link // between the router and the internet
}

// HostConfig says what a host on the internet is. Without V4 and V6 it has both.
type HostConfig struct {
	V4, V6 bool
	Link   Link
}

// Link describes each direction of a link. The zero Link is as fast as the machine.
type Link struct {
	Delay, Jitter time.Duration // one way
	Loss          float64       // 0 to 1
	Rate          int64         // bit/s
	Reorder       float64       // share of frames that skip the delay's queue
	MTU           int           // 1500 if 0
}

// Site is a router and its LAN.
type Site struct{}

// Host connects a host to the LAN.
func (s *Site) Host(name string) *Host { return nil }

// Renumber gives the site another public address and another IPv6 prefix.
func (s *Site) Renumber() error { return errStub }

// SetLink changes the site's link. It must have had a Link that is not zero from the beginning.
func (s *Site) SetLink(Link) error { return errStub }

// Public is the address that the internet sees; invalid without IPv4.
func (s *Site) Public() netip.Addr { return netip.Addr{} }

// Host is a machine.
type Host struct{}

// Name is the host's name, which programs see as the system's.
func (h *Host) Name() string { return "" }

// Command prepares a program that will run on the host. Errors are returned by its Start.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd { return nil }

// Do runs fn in the host's network namespace, on a thread of its own: sockets opened in it belong to the host.
func (h *Host) Do(fn func() error) error { return errStub }

// Addrs are the addresses of the host's underlay interfaces.
func (h *Host) Addrs() []netip.Addr { return nil }

// Addr4 is the first IPv4 address; invalid without one.
func (h *Host) Addr4() netip.Addr { return netip.Addr{} }

// Addr6 is the first IPv6 address; invalid without one.
func (h *Host) Addr6() netip.Addr { return netip.Addr{} }

// Move unplugs the host and plugs it into another site's LAN.
func (h *Host) Move(to *Site) error { return errStub }

// Renumber gives the host another address on the underlay: another network's on the internet, another host's on a LAN.
func (h *Host) Renumber() error { return errStub }

// LinkDown takes the carrier from eth0.
func (h *Host) LinkDown() error { return errStub }

// LinkUp gives it back.
func (h *Host) LinkUp() error { return errStub }

// Supported says what this system lacks for a lab, and the remedy.
func Supported() error { return errStub }

// EnterUserNamespace runs this program again as root of a user namespace of its own when it has no root, and exits with
// its status. It returns nil where that is not needed, or done.
func EnterUserNamespace() error { return errStub }

// Shim must be the first call of main and of TestMain. It returns at once, unless this process is one of a lab's commands.
func Shim() {}

// Sweep ends processes that labs which died have left behind.
func Sweep() error { return nil }
