//go:build linux

package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"meshd/integration/lab"
)

// memory is what a guest has, in MiB. The initramfs is in it twice while it is unpacked.
const memory = 160

// Options say what a guest is.
type Options struct {
	Name   string           // of the guest, for itself and in errors
	Netdev string           // what QEMU's -netdev is given, without an id: "vde,sock=DIR"; "" for no eth0
	MAC    net.HardwareAddr // of eth0; nil for QEMU's, which all guests share
	Clock  time.Duration    // how far its clock is ahead of this machine's; negative: behind
	Put    []string         // programs of this machine that it has in /bin; without libraries
	QEMU   []string         // a command that starts QEMU, and may add to its arguments; QEMU itself if nil
	User   uint32           // whom it runs as; the test's user if 0
}

// Guest is a running virtual machine.
type Guest struct {
	name    string
	dir     string
	cmd     *exec.Cmd
	control io.WriteCloser // commands to the guest

	complaints bytes.Buffer  // of QEMU itself; read when it has ended
	ended      chan struct{} // closed when QEMU has ended
	readers    sync.WaitGroup

	mu      sync.Mutex // guards what follows, and writing to control
	last    uint64     // number of the last command
	waiting map[uint64]chan<- answer
}

// ErrEnded is returned for what is asked of a guest that does not run any longer.
var ErrEnded = errors.New("the guest has ended")

// StatusError says that a command in a guest has ended with a status other than 0.
type StatusError struct {
	Command string
	Status  int
	Output  string
}

// Error is the command with its status and its output.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: exit status %d: %s", e.Command, e.Status, e.Output)
}

// Boot starts a guest on a host, and waits until it takes commands. Its network has begun to configure itself by then.
func Boot(ctx context.Context, host *lab.Host, files *Files, opts Options) (*Guest, error) {
	dir, err := os.MkdirTemp("", "meshd-guest-")
	if err != nil {
		return nil, err
	}
	g := &Guest{name: opts.Name, dir: dir, ended: make(chan struct{}), waiting: make(map[uint64]chan<- answer)}
	ready := make(chan answer, 1)
	g.waiting[0] = ready
	if err := g.start(host, files, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("boot guest %q: %w", opts.Name, err), os.RemoveAll(dir))
	}
	select {
	case <-ready:
		return g, nil
	case <-g.ended:
		err = ErrEnded
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(fmt.Errorf("boot guest %q: %w\n%s", opts.Name, err, g.Console()), g.Close())
}

// start starts QEMU and those who read from it.
func (g *Guest) start(host *lab.Host, files *Files, opts Options) error {
	if opts.User != 0 {
		if err := os.Chown(g.dir, int(opts.User), -1); err != nil {
			return err
		}
	}
	initrd, err := g.initrd(files, opts.Put)
	if err != nil {
		return err
	}
	program, args := files.qemu, arguments(files, initrd, opts, g.console())
	if opts.QEMU != nil {
		program, args = opts.QEMU[0], slices.Concat(opts.QEMU[1:], args)
	}
	if opts.User != 0 {
		id := fmt.Sprint(opts.User)
		args = append([]string{"--reuid", id, "--regid", id, "--clear-groups", "--no-new-privs", "--pdeathsig", "KILL", program}, args...)
		program = "setpriv"
	}
	g.cmd = host.Command(context.Background(), program, args...)
	g.cmd.Stderr = &g.complaints
	if g.control, err = g.cmd.StdinPipe(); err != nil {
		return err
	}
	answers, err := g.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := g.cmd.Start(); err != nil {
		return err
	}
	g.readers.Go(func() {
		g.read(answers)
		_ = g.cmd.Wait() // its end is all there is to know; what it said is in the log
		close(g.ended)
	})
	return nil
}

// initrd is what the guest boots into: what all do, and behind it an archive of programs, if it is to have some.
func (g *Guest) initrd(files *Files, programs []string) (string, error) {
	if len(programs) == 0 {
		return files.initrd, nil
	}
	image, err := os.ReadFile(files.initrd)
	if err != nil {
		return "", err
	}
	more, err := archive(programs)
	if err != nil {
		return "", err
	}
	path := filepath.Join(g.dir, "initrd")
	return path, os.WriteFile(path, append(image, more...), 0o644)
}

// arguments are QEMU's: only what is needed, so that the guest boots fast.
func arguments(files *Files, initrd string, opts Options, console string) []string {
	args := []string{
		"-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", fmt.Sprint(memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", files.kernel, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off nokaslr no_timer_check guest.name=" + opts.Name,
		"-serial", "file:" + console,
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=control,signal=off",
		"-device", "virtserialport,chardev=control,name=control",
	}
	if opts.Clock != 0 {
		args = append(args, "-rtc", "base="+time.Now().Add(opts.Clock).UTC().Format("2006-01-02T15:04:05"))
	}
	if opts.Netdev == "" {
		return args
	}
	nic := "virtio-net-pci,netdev=net,romfile="
	if opts.MAC != nil {
		nic += ",mac=" + opts.MAC.String()
	}
	return append(args, "-netdev", opts.Netdev+",id=net", "-device", nic)
}

// Run runs a command by the guest's shell and returns what it prints, on both outputs. An error of the command is a
// *StatusError. Commands run beside each other; one whose context has ended runs on.
func (g *Guest) Run(ctx context.Context, command string) (string, error) {
	done := make(chan answer, 1)
	g.mu.Lock()
	g.last++
	number := g.last
	g.waiting[number] = done
	_, err := g.control.Write(appendCommand(nil, number, command))
	g.mu.Unlock()
	defer g.forget(number)
	if err == nil {
		select {
		case a := <-done:
			if a.status != 0 {
				return a.output, &StatusError{Command: command, Status: a.status, Output: a.output}
			}
			return a.output, nil
		case <-g.ended:
			err = ErrEnded
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return "", fmt.Errorf("guest %q: %s: %w", g.name, command, err)
}

func (g *Guest) forget(number uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiting, number)
}

// read hands answers on until QEMU ends.
func (g *Guest) read(from io.Reader) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		a, err := parseAnswer(lines.Text())
		if err != nil {
			continue // not from the script
		}
		g.mu.Lock()
		if done := g.waiting[a.number]; done != nil {
			done <- a // has room for the one that comes
			delete(g.waiting, a.number)
		}
		g.mu.Unlock()
	}
}

// Console is what the guest's kernel, and QEMU, have printed.
func (g *Guest) Console() string {
	text, err := os.ReadFile(g.console())
	if err != nil {
		text = []byte(err.Error())
	}
	select {
	case <-g.ended:
		text = append(text, g.complaints.Bytes()...)
	default:
	}
	return string(text)
}

func (g *Guest) console() string { return filepath.Join(g.dir, "console") }

// PID is QEMU's process id.
func (g *Guest) PID() int { return g.cmd.Process.Pid }

// Close ends the guest as if its power were cut, and waits for it.
func (g *Guest) Close() error {
	err := g.cmd.Process.Signal(syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	g.readers.Wait()
	return errors.Join(err, os.RemoveAll(g.dir))
}
