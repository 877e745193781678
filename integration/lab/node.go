//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Build builds the program of the command package pkg (such as "meshd/cmd/meshd") into dir and returns its path.
func Build(ctx context.Context, dir, pkg string, args ...string) (string, error) {
	path := dir + "/" + pkg[strings.LastIndexByte(pkg, '/')+1:]
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", path}, args...), pkg)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("lab: build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// Node is a meshd on a host: its state directory, and the daemon when it runs. It knows the command line and no more.
type Node struct {
	Host   *Host
	Binary string   // the program
	State  string   // its --state
	Env    []string // beside this process' own
	Starts []string // a program, with arguments, that starts the daemon; none: it is started itself
	Logf   func(format string, args ...any)

	mu     sync.Mutex
	daemon *daemon
	log    output // of all its daemons
}

// daemon is one run of `meshd up`.
type daemon struct {
	cmd   *exec.Cmd
	out   output
	ended chan struct{}
	err   error // valid when ended is closed
}

// ExitError says that a program has ended with a status other than 0.
type ExitError struct {
	Args   []string
	Code   int // -1 when a signal ended it
	Stdout string
	Stderr string
}

// Error is the command with its status and its own words.
func (e *ExitError) Error() string {
	return fmt.Sprintf("meshd %s: exit status %d: %s", strings.Join(e.Args, " "), e.Code, strings.TrimSpace(e.Stderr))
}

// NewNode is a node on the host. Nothing runs yet.
func NewNode(h *Host, binary, state string) *Node {
	return &Node{Host: h, Binary: binary, State: state, Logf: h.lab.opts.Logf}
}

// Up starts `meshd up` with these arguments. It does not wait for anything.
func (n *Node) Up(args ...string) error { return n.UpWithInput(nil, args...) }

// UpWithInput is Up with something on standard input, as `--join -` reads it.
func (n *Node) UpWithInput(stdin io.Reader, args ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.daemon != nil && !n.daemon.hasEnded() {
		return fmt.Errorf("lab: meshd runs on %s already", n.Host.Name())
	}
	// The daemon lives until it is stopped, or the lab is closed.
	cmd := n.command(context.Background(), append([]string{"up"}, args...))
	d := &daemon{cmd: cmd, ended: make(chan struct{})}
	lines := &lineWriter{each: func(line string) { n.Logf("%s: %s", n.Host.Name(), line) }}
	cmd.Stdin = stdin
	cmd.Stdout = io.MultiWriter(&d.out, &n.log, lines)
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = time.Second // a child that keeps the output open does not keep us
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("lab: start meshd on %s: %w", n.Host.Name(), err)
	}
	n.daemon = d
	n.Host.lab.mu.Lock()
	n.Host.lab.own(d)
	n.Host.lab.mu.Unlock()
	go func() {
		d.err = cmd.Wait()
		lines.flush()
		d.out.end()
		close(d.ended)
	}()
	return nil
}

// Close waits for the end of a daemon that the lab has killed, and of what is printed for it.
func (d *daemon) Close() error {
	<-d.ended
	return nil
}

func (d *daemon) hasEnded() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

func (n *Node) command(ctx context.Context, args []string) *exec.Cmd {
	// The command comes first, so that flags of all commands and of one stand together.
	line := append([]string{n.Binary, args[0], "--state", n.State}, args[1:]...)
	if args[0] == "up" {
		line = append(slices.Clone(n.Starts), line...)
	}
	cmd := n.Host.Command(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), n.Env...)
	return cmd
}

// Ready waits until the daemon has printed a line that begins with "ready".
func (n *Node) Ready(ctx context.Context) error {
	_, err := n.Line(ctx, "ready")
	return err
}

// Line waits for a line of the daemon's output that begins with prefix, and returns it.
func (n *Node) Line(ctx context.Context, prefix string) (string, error) {
	d := n.running()
	if d == nil {
		return "", fmt.Errorf("lab: no meshd on %s", n.Host.Name())
	}
	line, err := d.out.line(ctx, func(line string) bool { return strings.HasPrefix(line, prefix) })
	if err != nil {
		return "", fmt.Errorf("lab: wait for %q of meshd on %s: %w\n%s", prefix, n.Host.Name(), err, d.out.String())
	}
	return line, nil
}

func (n *Node) running() *daemon {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.daemon
}

// Output is what the node's daemons have printed so far.
func (n *Node) Output() string { return n.log.String() }

// PID is the daemon's process id; 0 when none runs.
func (n *Node) PID() int {
	d := n.running()
	if d == nil || d.hasEnded() {
		return 0
	}
	return d.cmd.Process.Pid
}

// Signal sends a signal to the daemon.
func (n *Node) Signal(s os.Signal) error {
	d := n.running()
	if d == nil {
		return fmt.Errorf("lab: no meshd on %s", n.Host.Name())
	}
	return d.cmd.Process.Signal(s)
}

// Wait waits for the daemon's end and returns its exit status, -1 when a signal has ended it.
func (n *Node) Wait(ctx context.Context) (int, error) {
	d := n.running()
	if d == nil {
		return 0, fmt.Errorf("lab: no meshd on %s", n.Host.Name())
	}
	select {
	case <-d.ended:
		return d.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("lab: wait for the end of meshd on %s: %w", n.Host.Name(), ctx.Err())
	}
}

// Kill ends the daemon with SIGKILL and waits until it has ended.
func (n *Node) Kill() error { return n.stop(syscall.SIGKILL) }

// Interrupt ends it with SIGINT, as Ctrl-C does, and waits: the TAP goes as well.
func (n *Node) Interrupt() error { return n.stop(syscall.SIGINT) }

// Terminate ends it with SIGTERM and waits: the TAP stays.
func (n *Node) Terminate() error { return n.stop(syscall.SIGTERM) }

func (n *Node) stop(s syscall.Signal) error {
	if err := n.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := n.Wait(ctx)
	return err
}

// Run runs another command of meshd against the node and returns what it prints. An error of the program is an *ExitError.
func (n *Node) Run(ctx context.Context, args ...string) (string, error) {
	cmd := n.command(ctx, args)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return stdout.String(), &ExitError{Args: args, Code: exit.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	}
	return stdout.String(), err
}

// JSON runs a command with --json and decodes its answer into v.
func (n *Node) JSON(ctx context.Context, v any, args ...string) error {
	out, err := n.Run(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("lab: read the JSON of meshd %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// output collects what a program prints.
type output struct {
	mu    sync.Mutex
	text  []byte
	ended bool
	more  chan struct{} // closed, and made anew, with each write; nil before the first wait
}

// Write adds to the output.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	o.signal()
	return len(p), nil
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.signal()
}

func (o *output) signal() {
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
}

// String is the output so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// line waits for a complete line that matches.
func (o *output) line(ctx context.Context, match func(string) bool) (string, error) {
	for {
		o.mu.Lock()
		if o.more == nil {
			o.more = make(chan struct{})
		}
		text, ended, more := string(o.text), o.ended, o.more
		o.mu.Unlock()
		lines := strings.Split(text, "\n")
		for _, line := range lines[:len(lines)-1] {
			if match(line) {
				return line, nil
			}
		}
		if ended {
			return "", errors.New("it has ended")
		}
		select {
		case <-more:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// lineWriter hands on complete lines.
type lineWriter struct {
	part []byte
	each func(line string)
}

// Write takes the next piece of output.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.part = append(w.part, p...)
	for {
		advance, line, _ := bufio.ScanLines(w.part, false)
		if advance == 0 {
			return len(p), nil
		}
		w.each(string(line))
		w.part = w.part[advance:]
	}
}

func (w *lineWriter) flush() {
	if len(w.part) > 0 {
		w.each(string(w.part))
	}
}
