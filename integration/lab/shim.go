//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// shimName is the program name under which this program is started in order to enter a machine and become another.
const shimName = "meshd-lab-shim"

// shimFiles are the namespaces that a shim finds from descriptor 3 on, in the order in which it enters them. The mounts
// come last: after them the paths of before are gone.
var shimFiles = [...]int{unix.CLONE_NEWUTS, unix.CLONE_NEWNET, unix.CLONE_NEWNS}

// Shim must be the first call of main, and of TestMain, in a program that uses a lab. It returns at once, unless this
// process has been started to run a command on one of the lab's machines.
func Shim() {
	if len(os.Args) < 4 || os.Args[0] != shimName {
		return
	}
	err := becomeCommand(os.Args[1], os.Args[2], os.Args[3:])
	fmt.Fprintf(os.Stderr, "lab: run %s: %v\n", os.Args[2], err)
	os.Exit(126)
}

// becomeCommand enters the namespaces and executes path. It only returns what kept it from it.
func becomeCommand(mark, path string, argv []string) error {
	runtime.LockOSThread() // the thread that executes brings its namespaces along
	parent := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tie life to parent's: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the lab has died")
	}
	if err := os.Setenv(markVariable, mark); err != nil {
		return err
	}
	if err := enterAll(); err != nil {
		return err
	}
	return os.NewSyscallError("execve", syscall.Exec(path, argv, os.Environ()))
}

// enterAll enters the namespaces of shimFiles and removes their descriptors.
func enterAll() error {
	dir, dirErr := os.Getwd()
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // setns refuses a thread that shares its root and directory
		return os.NewSyscallError("unshare", err)
	}
	for i, kind := range shimFiles {
		if err := unix.Setns(3+i, kind); err != nil {
			return os.NewSyscallError("setns", err)
		}
		closeFD(3 + i)
	}
	if dirErr == nil {
		if err := unix.Chdir(dir); err != nil {
			return &os.PathError{Op: "chdir", Path: dir, Err: err}
		}
	}
	return closeGap()
}

// closeGap moves descriptors that the caller appended to ExtraFiles to where os/exec promises them: from 3 on. Those are
// the ones not marked close-on-exec; the Go runtime marks all of its own.
func closeGap() error {
	for fd := 3 + len(shimFiles); ; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil
		}
		if err := unix.Dup3(fd, fd-len(shimFiles), 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
		closeFD(fd)
	}
}
