//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name: it lives as long as something holds it.
type namespace struct {
	name string
	lab  *Lab
	file *os.File // holds the namespace
	fd   int      // of file
	link *netlink.Handle
}

// newNamespace makes a namespace with its loopback up.
func (l *Lab) newNamespace(name string) (*namespace, error) {
	fd, err := unshareNet(l.home)
	if err != nil {
		return nil, fmt.Errorf("make network namespace %q: %w", name, err)
	}
	ns := &namespace{name: name, lab: l, file: os.NewFile(uintptr(fd), "net"), fd: fd}
	if ns.link, err = netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_ROUTE); err != nil {
		ns.file.Close()
		return nil, fmt.Errorf("open rtnetlink in %q: %w", name, err)
	}
	l.spaces = append(l.spaces, ns)
	lo, err := ns.link.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo in %q: %w", name, err)
	}
	if err := ns.link.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("set lo up in %q: %w", name, err)
	}
	return ns, ns.sysctl(map[string]string{"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0"})
}

// newRouter makes a namespace that forwards.
func (l *Lab) newRouter(name string) (*namespace, error) {
	ns, err := l.newNamespace(name)
	if err != nil {
		return nil, err
	}
	return ns, ns.sysctl(map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"})
}

func (ns *namespace) close() {
	ns.link.Close()
	ns.file.Close()
}

// do runs fn on a thread inside the namespace and waits for it.
func (ns *namespace) do(fn func() error) error {
	return inNamespace(ns.fd, ns.lab.home, fn)
}

// sysctl sets parameters, named as under /proc/sys/net.
func (ns *namespace) sysctl(values map[string]string) error {
	return ns.do(func() error {
		for key, value := range values {
			// The path leads to the parameters of the namespace that the opening thread is in.
			if err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0); err != nil {
				return fmt.Errorf("set %s in %q: %w", strings.ReplaceAll(key, "/", "."), ns.name, err)
			}
		}
		return nil
	})
}

// inode identifies the namespace among those that /proc/PID/ns/net shows.
func (ns *namespace) inode() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(ns.fd, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// errExited is returned when fn of a Do ended its goroutine, as testing's FailNow does.
var errExited = errors.New("lab: the function in the namespace ended its goroutine")

// inNamespace runs fn in a goroutine of its own whose thread is in the network namespace target. A thread that cannot
// come home is given to the runtime to be ended; all others live on, since the kernel takes the end of a thread for the
// parent's death when it signals the children that the thread has started.
func inNamespace(target, home int, fn func() error) error {
	err := errExited
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if e := unix.Setns(target, unix.CLONE_NEWNET); e != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("enter network namespace: %w", e)
			return
		}
		defer func() {
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = fn()
	}()
	<-done
	return err
}

// unshareNet makes a network namespace and returns a descriptor that holds it.
func unshareNet(home int) (fd int, err error) {
	err = inNamespace(home, home, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		fd, err = openThreadNet()
		return err
	})
	return fd, err
}

// openThreadNet returns a descriptor of the calling thread's network namespace.
func openThreadNet() (int, error) { return openNS("net") }

func openNS(kind string) (int, error) {
	path := "/proc/thread-self/ns/" + kind
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// closeFD closes a descriptor that nothing was written to: there is no error to learn of.
func closeFD(fd int) { _ = unix.Close(fd) }
