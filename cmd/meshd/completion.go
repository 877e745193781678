package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout bounds how long the shell waits for names.
const completionTimeout = time.Second

// newCompletion is `meshd completion`.
func newCompletion(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:               "completion SHELL",
		Short:             "Print the completion script for bash, zsh, fish or powershell",
		Example:           "  source <(meshd completion bash)",
		Args:              oneArg("SHELL"),
		ValidArgs:         shells,
		PersistentPreRunE: needsNoNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			default:
				return usageError(cmd.Name(), fmt.Sprintf("%q is none of %s", args[0], strings.Join(shells, ", ")), "")
			}
		},
	}
}

// completeNames offers the names of members.
func (a *app) completeNames(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 || a.settle(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	s, err := a.client().Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, p := range s.Peers {
		if p.Name != "" && clean(p.Name) == p.Name {
			names = append(names, cobra.CompletionWithDesc(p.Name, clean(string(p.State))))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeWords offers the words of those who wait: the next word of each that begins with the given ones.
func (a *app) completeWords(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if a.settle(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	reqs, err := a.client().Requests(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var next []cobra.Completion
	for _, r := range reqs {
		rest, ok := strings.CutPrefix(clean(r.Words)+" ", strings.Join(append(args, ""), " "))
		if word, _, more := strings.Cut(rest, " "); ok && more && word != "" {
			next = append(next, cobra.CompletionWithDesc(word, field(r.Name)))
		}
	}
	return next, cobra.ShellCompDirectiveNoFileComp
}
