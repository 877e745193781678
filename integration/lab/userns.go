//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideVariable tells a program that it has been started again inside a user namespace.
const insideVariable = "MESHD_LAB_USERNS"

// Supported says what this system lacks for a lab, with the remedy. It tries rather than guesses: what it makes is gone
// when it returns.
func Supported() error {
	home, err := openThreadNet()
	if err != nil {
		return fmt.Errorf("lab: %w\nmount proc on /proc", err)
	}
	defer closeFD(home)
	fd, err := unshareNet(home)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("lab: make a network namespace: %w\nrun it as root, or where users may make user namespaces", err)
	case err != nil:
		return fmt.Errorf("lab: make a network namespace: %w\nit needs a kernel with CONFIG_NET_NS and user.max_net_namespaces above 0", err)
	}
	defer closeFD(fd)
	if err := inNamespace(fd, home, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	}); err != nil {
		return fmt.Errorf("lab: let a namespace forward: %w\n/proc/sys must be writable: in a container, run it privileged", err)
	}
	if err := probeRules(fd); err != nil {
		return fmt.Errorf("lab: load packet filter rules: %w\nit needs a kernel with nf_tables, nft_nat and nft_masq", err)
	}
	return nil
}

// EnterUserNamespace gives a program that runs without root a user namespace in which it is root: it runs the program
// again inside, with the same arguments and files, and exits with its status. It returns nil in a program that has root,
// or is inside already, and an error where users may not do this. Call it early in main, after [Shim].
func EnterUserNamespace() error {
	if os.Geteuid() == 0 || os.Getenv(insideVariable) != "" {
		return nil
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET, // its own network, to be able to come home from others
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	// The terminal sends its signals to both; what is sent to this process alone is handed on.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		return fmt.Errorf("lab: make a user namespace: %w\nrun it as root, or allow it: sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), "+
			"kernel.unprivileged_userns_clone=1 (older Debian), user.max_user_namespaces above 0", err)
	}
	go func() {
		for s := range signals {
			if s == unix.SIGTERM || s == unix.SIGHUP {
				_ = cmd.Process.Signal(s) // it may have ended
			}
		}
	}()
	err := cmd.Wait()
	if cmd.ProcessState == nil {
		return fmt.Errorf("lab: wait for the user namespace: %w", err)
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		os.Exit(128 + int(status.Signal()))
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}
