package l2

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/l2/offload"
)

// vnetHdrLen is the size of struct virtio_net_hdr, which stands before every frame
// (IFF_VNET_HDR).
const vnetHdrLen = offload.HeaderLen

// TAP is the host's side of the segment, as an Ethernet interface. It is a Device.
type TAP struct {
	cfg   TAPConfig
	file  *os.File
	raw   syscall.RawConn
	index int
	nl    *netlink.Handle // of the namespace that the TAP was opened in

	offloads offload.Features

	in  tapReader
	out tapWriter

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
	fd, err := attach(t.nl, t.cfg.Name)
	if err != nil {
		return err
	}
	// The descriptor is registered with the poller only now: one without an
	// interface reports an error to epoll for ever.
	t.file = os.NewFile(uintptr(fd), "/dev/net/tun")
	if t.raw, err = t.file.SyscallConn(); err != nil {
		return &DeviceError{"open tap", t.cfg.Name, err, ""}
	}
	t.offloads = t.negotiate()
	t.in.init(t.cfg.MTU, t.offloads)
	t.out.init()
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

// attach opens the TUN driver and makes the interface name, or takes an existing TAP
// of that name. No offload is on: segments arrive and leave one by one.
func attach(handle *netlink.Handle, name string) (fd int, err error) {
	if err := refuseForeign(handle, name); err != nil {
		return -1, err
	}
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, openError(name, err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return -1, attachError(name, err)
	}
	if err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHdrLen); err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, &DeviceError{"set up tap", name, err, ""}
	}
	return fd, nil
}

// refuseForeign reports an interface of that name which is not a TAP.
func refuseForeign(handle *netlink.Handle, name string) error {
	link, err := handle.LinkByName(name)
	if err != nil {
		return nil // it is not there, or TUNSETIFF will say what is wrong
	}
	if tuntap, ok := link.(*netlink.Tuntap); ok && tuntap.Mode == netlink.TUNTAP_MODE_TAP {
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
	if t.file == nil {
		return nil
	}
	if err := t.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return &DeviceError{"close tap", t.cfg.Name, err, ""}
	}
	return nil
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
	fd, err := attach(handle, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0); err != nil {
		return &DeviceError{"remove tap", name, err, ""}
	}
	return nil
}

// iovec is a piece of memory for writev.
func iovec(b []byte) (v unix.Iovec) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	return v
}
