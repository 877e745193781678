package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot is the command tree.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "meshd",
		Short:         "One Ethernet segment for machines that are anywhere",
		Long:          longHelp,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			cmd.SetOut(a.stderr)
			_ = cmd.Help()
			return exitStatus(2)
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.settle(cmd) },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetVersionTemplate("meshd {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	f.StringVar(&a.flags.state, "state", "", "folder of all that the node keeps (env MESHD_STATE)")
	f.StringVar(&a.flags.socket, "socket", "", "control socket (env MESHD_SOCKET)")
	f.StringVar(&a.flags.config, "config", "", "TOML file with one key per flag; flags win")
	f.BoolVar(&a.flags.json, "json", false, "print JSON")
	root.AddCommand(
		newUp(a), newDown(a), newStatus(a), newPing(a), newHosts(a), newShare(a), newInvite(a), newRequests(a), newApprove(a), newDeny(a),
		newRevoke(a), newRole(a), newLeave(a), newGraph(a), newPrefix(a), newGateway(a),
		newWait(a), newNetcheck(a), newDoctor(a), newDemo(a), newPlug(a), newStdio(a), newVersion(a), newCompletion(a),
	)
	root.SetHelpCommand(newHelp())
	return root
}

const longHelp = `meshd joins machines into one Ethernet segment, wherever they are. There is no server.

  first machine     meshd up
  every other one   meshd up --join HOST, or meshd up --join - and then the line that meshd invite prints

Exit status: 0 done, 1 failed, 2 wrong usage, 3 no daemon answers, 4 not connected or a wait ran out.`

// unknownCommand says so, and what may have been meant.
func unknownCommand(root *cobra.Command, name string) error {
	remedy := "meshd --help lists the commands"
	root.SuggestionsMinimumDistance = 2
	if near := root.SuggestionsFor(name); len(near) > 0 {
		remedy = "did you mean meshd " + strings.Join(near, " or meshd ") + "?"
	}
	return usageError(fmt.Sprintf("%q", name), "no such command", remedy)
}

// later are the flags of up that other versions have, so that the error can say so.
func later() []string {
	return []string{
		"metrics",
	}
}

// flagError makes wrong usage of what pflag says about a flag.
func flagError(cmd *cobra.Command, err error) error {
	remedy := "see " + cmd.CommandPath() + " --help"
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		why := "no such flag"
		if cmd.Name() == "up" && slices.Contains(later(), e.GetSpecifiedName()) {
			why = "this version of meshd does not have it yet"
		}
		dashes := "--"
		if e.GetSpecifiedShortnames() != "" {
			dashes = "-"
		}
		return usageError(dashes+e.GetSpecifiedName(), why, remedy)
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return usageError("--"+e.GetFlag().Name, fmt.Sprintf("%q is not of the right kind (%s)", e.GetValue(), e.GetFlag().Value.Type()), remedy)
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usageError("--"+e.GetFlag().Name, "its value is missing", remedy)
	}
	return usageError(cmd.Name(), oneLine(err.Error()), remedy)
}

// newHelp is `meshd help`.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND]",
		Short:             "Show what a command does",
		PersistentPreRunE: needsNoNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 || about == cmd.Root() && len(args) > 0 {
				return unknownCommand(cmd.Root(), args[0])
			}
			return about.Help()
		},
	}
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(cmd.Name(), fmt.Sprintf("it takes no argument, and %q is one", args[0]), "")
	}
	return nil
}

// oneArg wants exactly one argument, which it calls name in the error.
func oneArg(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 1:
			return nil
		case 0:
			return usageError(cmd.Name(), name+" is missing", "")
		default:
			return usageError(cmd.Name(), fmt.Sprintf("it takes one %s, and %q is another argument", name, args[1]), "")
		}
	}
}

// settle brings flags, environment, configuration file and defaults together before a command runs.
func (a *app) settle(cmd *cobra.Command) error {
	known := func(name string) bool { return knownFlag(cmd.Root(), name) }
	flags := cmd.Flags()
	if a.flags.config != "" {
		if err := applyConfigFile(a.flags.config, flags, known); err != nil {
			return err
		}
	}
	return a.settlePaths(flags, cmd.Name() == "up")
}

// needsNoNode is in place of settle for commands that concern no node: they work also where none can be.
func needsNoNode(*cobra.Command, []string) error { return nil }

// knownFlag reports whether any command has the flag, so that one file serves all commands.
func knownFlag(root *cobra.Command, name string) bool {
	switch name {
	case "config", "help", "version", "detach":
		return false
	}
	for _, c := range root.Commands() {
		if c.Flags().Lookup(name) != nil {
			return true
		}
	}
	return root.PersistentFlags().Lookup(name) != nil
}

// changed reports whether a flag has been given, by the command line or the file.
func changed(flags *pflag.FlagSet, name string) bool {
	f := flags.Lookup(name)
	return f != nil && f.Changed
}
