//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// machine is a network namespace that programs run in: with a name of its own (UTS namespace), and a view of the file
// system (mount namespace) in which /run and /sys are its own and resolv.conf points at the lab's server.
type machine struct {
	lab    *Lab
	name   string
	ns     *namespace // nil when building it failed; the lab has the error
	resolv string     // content of /etc/resolv.conf
	view   *view      // made by the first Command; guarded by the lab's lock
}

// view is what a machine has besides its network.
type view struct {
	mnt, uts *os.File
	resolv   *os.File // resolv.conf, which stays writable from outside
}

func (v *view) Close() error {
	err := errors.Join(v.mnt.Close(), v.uts.Close())
	if v.resolv != nil {
		err = errors.Join(err, v.resolv.Close())
	}
	return err
}

// look returns the machine's view, and makes it the first time.
func (m *machine) look() (*view, error) {
	if m.view != nil {
		return m.view, nil
	}
	v, err := newView(m.ns.fd, m.name, m.resolv)
	if err != nil {
		return nil, fmt.Errorf("lab: make host %q: %w", m.name, err)
	}
	m.view = v
	m.lab.own(v)
	return v, nil
}

// newView makes a view of the network namespace net.
func newView(net int, name, resolv string) (v *view, err error) {
	done := make(chan struct{})
	viewMaker() <- func(base *viewBase) {
		defer close(done)
		if base.err != nil {
			err = base.err
			return
		}
		v, err = unshareView(net, name, resolv)
		err = errors.Join(err, base.comeBack())
	}
	<-done
	return v, err
}

// viewMaker returns the queue of the one goroutine that makes views, which it starts the first time and which lives as
// long as the process. A thread that has had a mount namespace of its own shares its directory with no other and cannot
// be given back to the runtime. It must not end, either: the runtime may have started programs from it before, and the
// kernel takes the end of the thread for the death of their parent. So there is one such thread, and it stays.
var viewMaker = sync.OnceValue(func() chan<- func(*viewBase) {
	requests := make(chan func(*viewBase))
	go func() {
		runtime.LockOSThread()
		base := newViewBase()
		for request := range requests {
			request(base)
		}
	}()
	return requests
})

// viewBase is where the maker of views is between two.
type viewBase struct {
	net, mnt, uts int
	err           error // what keeps it from making any
}

// newViewBase moves the thread to namespaces of its own, which those of views are copied from.
func newViewBase() *viewBase {
	b := new(viewBase)
	if b.net, b.err = openThreadNet(); b.err != nil {
		return b
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		b.err = fmt.Errorf("unshare mounts and host name: %w", err)
		return b
	}
	// Mounts that the system gets later come through, and none goes back.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		b.err = fmt.Errorf("keep mounts to ourselves: %w", err)
		return b
	}
	if b.mnt, b.err = openNS("mnt"); b.err == nil {
		b.uts, b.err = openNS("uts")
	}
	return b
}

// comeBack leaves a view.
func (b *viewBase) comeBack() error {
	for _, ns := range [...]struct{ fd, kind int }{{b.uts, unix.CLONE_NEWUTS}, {b.net, unix.CLONE_NEWNET}, {b.mnt, unix.CLONE_NEWNS}} {
		if err := unix.Setns(ns.fd, ns.kind); err != nil {
			b.err = fmt.Errorf("leave a host's namespaces: %w", err)
			return b.err
		}
	}
	return nil
}

// unshareView moves the thread to a new view.
func unshareView(net int, name, resolv string) (*view, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return nil, fmt.Errorf("unshare mounts and host name: %w", err)
	}
	if err := unix.Setns(net, unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter network namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return nil, fmt.Errorf("set host name %q: %w", name, err)
	}
	if err := mountRun(); err != nil {
		return nil, err
	}
	// sysfs shows the network of who mounts it. Some containers do not allow it: then programs see the outer one's.
	_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
	v := new(view)
	var err error
	if v.resolv, err = mountResolv(resolv); err != nil {
		return nil, err
	}
	if v.mnt, err = openFile("mnt"); err != nil {
		return nil, err
	}
	v.uts, err = openFile("uts")
	return v, err
}

func openFile(kind string) (*os.File, error) {
	fd, err := openNS(kind)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), kind), nil
}

// mountRun gives the view an empty /run, so that sockets of programs on different machines do not meet.
func mountRun() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	if real, err := filepath.EvalSymlinks("/var/run"); err == nil && real != "/run" {
		if err := unix.Mount("/run", real, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind /run on %s: %w", real, err)
		}
	}
	return nil
}

// mountResolv puts a resolv.conf of the machine's own in place of the system's. It lives in the tmpfs on /run: where
// /etc/resolv.conf leads there, the file is put there, else it is bound over. A system without one goes without.
func mountResolv(content string) (*os.File, error) {
	const etc, own = "/etc/resolv.conf", "/run/lab-resolv.conf"
	path := own
	_, err := os.Stat(etc)
	if errors.Is(err, fs.ErrNotExist) {
		target, err := os.Readlink(etc)
		if err != nil {
			return nil, nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join("/etc", target)
		}
		if !strings.HasPrefix(target, "/run/") {
			return nil, nil
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return nil, err
		}
		path = target
	}
	f, ferr := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if ferr != nil {
		return nil, ferr
	}
	if _, err := f.WriteString(content); err != nil {
		f.Close()
		return nil, err
	}
	if path == own {
		if err := unix.Mount(own, etc, "", unix.MS_BIND, ""); err != nil {
			f.Close()
			return nil, fmt.Errorf("bind %s on %s: %w", own, etc, err)
		}
	}
	return f, nil
}

// Command prepares a program that will run on the machine: with its network, host name, /run and resolv.conf, in a
// process group of its own. Everything of the result may be set but Path, Args and ExtraFiles, to which may be appended.
// The kernel kills the program when this process ends. What keeps it from running is returned by its Start.
func (m *machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	v, err := m.enter(ctx)
	if err != nil {
		return failed(ctx, name, err)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return failed(ctx, name, err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{shimName, m.lab.mark, path, name}, args...)
	cmd.ExtraFiles = []*os.File{v.uts, m.ns.file, v.mnt}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// enter waits until the lab carries frames and returns the machine's view.
func (m *machine) enter(ctx context.Context) (*view, error) {
	m.lab.mu.Lock()
	defer m.lab.mu.Unlock()
	if err := m.lab.ready(ctx); err != nil {
		return nil, err
	}
	return m.look()
}

// Do runs fn in the machine's network namespace, in a goroutine and on a thread of their own, and returns its error:
// sockets that fn opens, and programs that it starts, belong to the machine. Goroutines that fn starts do not.
func (m *machine) Do(fn func() error) error {
	if err := m.lab.Ready(context.Background()); err != nil {
		return err
	}
	return m.ns.do(fn)
}

// Name is what programs on the machine see as the host's name.
func (m *machine) Name() string { return m.name }

// failed is a command whose Start returns err.
func failed(ctx context.Context, name string, err error) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args, cmd.Err = []string{name}, err
	return cmd
}
