package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"meshd/mesh/api"
)

// app is what the commands have in common: the outside world, and the flags of all.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	node           node
	now            func() time.Time
	style          style
	// live says that stdout is a terminal, so that it may be written over.
	live bool
	// signals says that this process gets the user's signals; tests do not.
	signals bool

	flags globalFlags
}

// globalFlags are the flags of all commands.
type globalFlags struct {
	state, socket, config string
	json                  bool
}

// newApp is an app on this process's own streams.
func newApp() *app {
	live := term.IsTerminal(int(os.Stdout.Fd()))
	return &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, node: realNode{}, now: time.Now,
		live: live, signals: true,
		style: style{on: live && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"},
	}
}

// run runs one command and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	e := asError(err)
	a.report(e)
	if e.Code == api.CodeUsage && e.Remedy == "" && cmd != nil {
		fmt.Fprintf(a.stderr, "see %s --help\n", cmd.CommandPath())
	}
	return e.Code.ExitStatus()
}

// exitStatus ends a command that has said all there is to say.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// asError is err with a code; cobra's own errors are all about usage, and are made so where they arise.
func asError(err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	what, why, found := strings.Cut(err.Error(), ": ")
	if !found {
		what, why = "", what
	}
	return &api.Error{Code: api.CodeOf(err), What: what, Why: why, Err: err}
}

// report prints an error: what and why in one line, the remedy in a second.
func (a *app) report(e *api.Error) {
	fmt.Fprintf(a.stderr, "meshd: %s\n", clean(e.Error()))
	if e.Remedy != "" {
		fmt.Fprintln(a.stderr, clean(e.Remedy))
	}
}

// client is a client of the daemon that the flags mean.
func (a *app) client() *api.Client { return api.NewClient(a.flags.socket) }

// printf writes to stdout.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.stdout, format, args...) }

// usageError is an error of wrong usage.
func usageError(what, why, remedy string) error {
	return &api.Error{Code: api.CodeUsage, What: what, Why: why, Remedy: remedy}
}

// usagef is wrong usage of a flag.
func usagef(flag, format string, args ...any) error {
	return usageError("--"+flag, fmt.Sprintf(format, args...), "")
}
