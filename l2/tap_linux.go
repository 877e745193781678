package l2

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/l2/offload"
)

// TAP is the host's side of the segment, as an Ethernet interface. It is a Device.
type TAP struct {
	cfg   TAPConfig
	file  *os.File // of the first queue
	raw   syscall.RawConn
	index int
	nl    *netlink.Handle // of the namespace that the TAP was opened in

	offloads offload.Features
	queues   []*tapQueue

	mu       sync.Mutex // of what follows
	set      addresses
	problems []Problem
}

// OpenTAP makes the interface, or attaches to the one that an earlier process left.
// The interface is up when it returns.
func OpenTAP(cfg TAPConfig) (*TAP, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, &DeviceError{"open tap", cfg.Name, fmt.Errorf("open netlink: %w", err), ""}
	}
	t := &TAP{cfg: cfg, nl: handle}
	if err := t.open(); err != nil {
		t.Close()
		handle.Close()
		return nil, err
	}
	return t, nil
}

// open leaves what it has done so far in t; an interface that is not persistent yet
// vanishes when t is closed.
func (t *TAP) open() error {
	fd, flags, err := attach(t.nl, &t.cfg)
	if err != nil {
		return err
	}
	if err := t.addQueue(fd); err != nil {
		return err
	}
	t.file, t.raw = t.queues[0].file, t.queues[0].raw
	hasHeader := flags&unix.IFF_VNET_HDR != 0
	if hasHeader {
		t.offloads = t.negotiate()
	}
	if flags&unix.IFF_MULTI_QUEUE != 0 && t.cfg.Queues > 1 {
		if err := t.moreQueues(flags); err != nil {
			return err
		}
	}
	for _, q := range t.queues {
		q.init(t.cfg.MTU, t.offloads, hasHeader)
	}
	if err := t.configure(); err != nil {
		return err
	}
	if t.cfg.Persist {
		if err := t.ioctl(unix.TUNSETPERSIST, 1); err != nil {
			return &DeviceError{"make tap persistent", t.cfg.Name, err, ""}
		}
	}
	return nil
}

// negotiate enables the offloads that the kernel knows: USO since 6.2, the others
// always. Frames come without them as well, so that a refusal is no error.
func (t *TAP) negotiate() offload.Features {
	for _, want := range []offload.Features{
		offload.All, offload.All &^ offload.USO, offload.Checksum,
	} {
		want &^= t.cfg.WithoutOffloads
		if !want.Has(offload.Checksum) {
			return offload.None
		}
		if t.ioctl(unix.TUNSETOFFLOAD, tunFlags(want)) == nil {
			return want
		}
	}
	return offload.None
}

// tunFlags translates to TUN_F_* (linux/if_tun.h). TUN_F_TSO_ECN is left out: the
// kernel itself cuts the rare super-frame that has CWR.
func tunFlags(f offload.Features) (flags int) {
	for i, flag := range [...]int{
		unix.TUN_F_CSUM, unix.TUN_F_TSO4, unix.TUN_F_TSO6, unix.TUN_F_USO4 | unix.TUN_F_USO6,
	} {
		if f&(1<<i) != 0 {
			flags |= flag
		}
	}
	return flags
}

// Offloads says which super-frames are exchanged with the host.
func (t *TAP) Offloads() offload.Features { return t.offloads }

// attach opens the TUN driver and makes the interface that cfg names, or takes an
// existing TAP of that name. No offload is on: segments arrive and leave one by one.
// It returns what the TAP has of IFF_VNET_HDR and IFF_MULTI_QUEUE.
func attach(handle *netlink.Handle, cfg *TAPConfig) (fd int, flags uint16, err error) {
	if err := refuseForeign(handle, cfg.Name); err != nil {
		return -1, 0, err
	}
	if cfg.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	if !cfg.WithoutHeader {
		flags |= unix.IFF_VNET_HDR
	}
	fd, err = attachAs(cfg.Name, flags)
	if errors.Is(err, unix.EINVAL) { // an earlier process has made it with another number of queues
		flags ^= unix.IFF_MULTI_QUEUE
		fd, err = attachAs(cfg.Name, flags)
	}
	if errors.Is(err, unix.EINVAL) && flags&unix.IFF_VNET_HDR != 0 { // older than 2.6.27, or no Linux at all
		flags &^= unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE
		fd, err = attachAs(cfg.Name, flags)
	}
	if err != nil {
		return -1, 0, err
	}
	if flags&unix.IFF_VNET_HDR != 0 {
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, offload.HeaderLen)
	}
	if err = errors.Join(err, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0)); err != nil {
		unix.Close(fd)
		return -1, 0, &DeviceError{"set up tap", cfg.Name, err, ""}
	}
	return fd, flags, nil
}

// attachAs opens one queue of a TAP. The descriptor has an interface before it gets
// to the poller: one without reports an error to epoll for ever.
func attachAs(name string, flags uint16) (fd int, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, openError(name, err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return -1, attachError(name, err)
	}
	return fd, nil
}

// refuseForeign reports an interface of that name which is not a TAP, or is in use.
func refuseForeign(handle *netlink.Handle, name string) error {
	link, err := handle.LinkByName(name)
	if err != nil {
		return nil // it is not there, or TUNSETIFF will say what is wrong
	}
	if tuntap, ok := link.(*netlink.Tuntap); ok && tuntap.Mode == netlink.TUNTAP_MODE_TAP {
		if tuntap.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 && tuntap.Queues > 0 { // the kernel would let us join
			return attachError(name, unix.EBUSY)
		}
		return nil
	}
	kind := link.Type()
	if _, ok := link.(*netlink.Tuntap); ok {
		kind = "tun"
	}
	return &DeviceError{
		"open tap", name, fmt.Errorf("an interface of that name exists and is a %s, not a TAP", kind),
		"choose another name with --tap, or remove it",
	}
}

func openError(name string, err error) error {
	e := &DeviceError{Op: "open tap", Name: name, Err: fmt.Errorf("open /dev/net/tun: %w", err)}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		e.Remedy = "load the driver with: modprobe tun (in a container, pass the device /dev/net/tun to it)"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		e.Remedy = "run as root, or grant CAP_NET_ADMIN and access to /dev/net/tun"
	}
	return e
}

func attachError(name string, err error) error {
	e := &DeviceError{Op: "open tap", Name: name, Err: err}
	switch {
	case errors.Is(err, unix.EBUSY):
		e.Err = fmt.Errorf("another program holds it%s: %w", holder(name), err)
		e.Remedy = "stop that program, or choose another name with --tap"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Remedy = "run as root, or grant CAP_NET_ADMIN"
	case errors.Is(err, unix.EINVAL):
		e.Err = fmt.Errorf("an interface of that name exists in another mode: %w", err)
		e.Remedy = "choose another name with --tap, or remove it with: ip link del " + name
	}
	return e
}

// ioctl runs a request with an integer argument on the open TAP.
func (t *TAP) ioctl(req uint, arg int) (err error) {
	if t.raw.Control(func(fd uintptr) { err = unix.IoctlSetInt(int(fd), req, arg) }) != nil {
		return os.ErrClosed
	}
	return err
}

// Name is the interface's name.
func (t *TAP) Name() string { return t.cfg.Name }

// MTU is the interface's MTU.
func (t *TAP) MTU() int { return t.cfg.MTU }

// Problems lists what could not be set up as it should be.
func (t *TAP) Problems() []Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Problem(nil), t.problems...)
}

// Close ends the use of the TAP. A persistent one stays.
func (t *TAP) Close() error {
	var errs []error
	for _, q := range t.queues {
		if err := q.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, &DeviceError{"close tap", t.cfg.Name, err, ""})
		}
	}
	return errors.Join(errs...)
}

// Remove closes the TAP and removes the interface, also when it is persistent. It
// may follow Close.
func (t *TAP) Remove() error {
	err := t.ioctl(unix.TUNSETPERSIST, 0)
	closed := t.Close()
	if errors.Is(err, os.ErrClosed) {
		return removeTAP(t.nl, t.cfg.Name)
	}
	if err != nil {
		return &DeviceError{"remove tap", t.cfg.Name, err, ""}
	}
	return closed
}

// RemoveTAP removes a persistent TAP that no process holds. One that is not there is
// no error.
func RemoveTAP(name string) error {
	cfg := TAPConfig{Name: name}
	if err := cfg.check(); err != nil {
		return err
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return &DeviceError{"remove tap", name, fmt.Errorf("open netlink: %w", err), ""}
	}
	defer handle.Close()
	return removeTAP(handle, name)
}

// removeTAP attaches to the TAP, which proves that it is one and that nobody else
// holds it, and lets it go for good.
func removeTAP(handle *netlink.Handle, name string) error {
	if _, err := handle.LinkByName(name); errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	fd, _, err := attach(handle, &TAPConfig{Name: name})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0); err != nil {
		return &DeviceError{"remove tap", name, err, ""}
	}
	return nil
}
