package main

import (
	"os"

	"github.com/spf13/pflag"
)

// detachedEnv tells a process that it is the one in the background.
const detachedEnv = "MESHD_DETACHED"

// detachedChild reports whether this process is to leave the terminal once the node is ready. It asks once: programs
// that this one starts are not told.
func detachedChild(getenv func(string) string) bool {
	is := getenv(detachedEnv) == "1"
	if is {
		_ = os.Unsetenv(detachedEnv)
	}
	return is
}

// childArgs are the arguments of the process in the background: all that has been settled so far. Where to join goes by
// its stdin, for there may be an invite among it.
func childArgs(flags *pflag.FlagSet, state, socket string, joins bool) []string {
	args := []string{"up", "--state=" + state, "--socket=" + socket}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		switch f.Name {
		case "join", "detach", "state", "socket", "config":
			return
		}
		slice, ok := f.Value.(pflag.SliceValue)
		if !ok {
			args = append(args, "--"+f.Name+"="+f.Value.String())
			return
		}
		for _, v := range slice.GetSlice() {
			args = append(args, "--"+f.Name+"="+v)
		}
	})
	if joins {
		args = append(args, "--join=-")
	}
	return args
}
