//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"meshd/mesh/api"
)

const (
	// detachedLog is where a node in the background logs, in its state folder; maxDetachedLog is when it starts anew.
	detachedLog    = "meshd.log"
	maxDetachedLog = 1 << 20
)

// detach starts the node in a process of its own session, shows what it prints until it is ready, and returns then. If
// it ends before, its exit status is ours; it has said why on our stderr.
func (a *app) detach(ctx context.Context, flags *pflag.FlagSet, joins []string) error {
	failed := func(err error) error {
		return &api.Error{Code: api.CodeFailed, What: "start in the background", Why: reason(err), Err: err}
	}
	exe, err := os.Executable()
	if err != nil {
		return failed(err)
	}
	child := exec.Command(exe, childArgs(flags, a.flags.state, a.flags.socket, len(joins) > 0)...)
	child.Env = append(os.Environ(), detachedEnv+"=1")
	child.Dir = "/"
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	child.Stderr = a.stderr
	if len(joins) > 0 {
		child.Stdin = strings.NewReader(strings.Join(joins, "\n") + "\n")
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return failed(err)
	}
	ctx, stop := a.interruptible(ctx)
	defer stop()
	if err := child.Start(); err != nil {
		return failed(err)
	}
	stopEnding := context.AfterFunc(ctx, func() { _ = child.Process.Signal(os.Interrupt) })
	defer stopEnding()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		a.printf("%s\n", lines.Text())
		if strings.HasPrefix(lines.Text(), "ready") {
			return nil
		}
	}
	err = child.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.Exited() {
		return exitStatus(e.ExitCode())
	}
	if err == nil {
		err = errors.New("it ended before it was ready")
	}
	return failed(err)
}

// leaveTerminal lets go of the streams that the process has from the one that started it. What it logs from now on goes
// to a file in its state.
func leaveTerminal(stateDir string) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer null.Close()
	log, err := openDetachedLog(stateDir)
	if err != nil {
		fmt.Fprintf(os.Stderr, "meshd: open log: %v\n", err)
		log = null
	} else {
		defer log.Close()
	}
	_ = unix.Dup2(int(null.Fd()), 0)
	_ = unix.Dup2(int(null.Fd()), 1)
	_ = unix.Dup2(int(log.Fd()), 2)
}

// openDetachedLog opens the log to go on with it, or to begin anew if it has become long.
func openDetachedLog(stateDir string) (*os.File, error) {
	path := filepath.Join(stateDir, detachedLog)
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if fi, err := os.Lstat(path); err == nil && fi.Size() > maxDetachedLog {
		flags |= os.O_TRUNC
	}
	return os.OpenFile(path, flags|syscall.O_NOFOLLOW, 0o600)
}
