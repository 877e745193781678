package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"meshd/mesh"
)

// newStdio is `meshd stdio`.
func newStdio(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "stdio",
		Short: "Connect stdin and stdout to the running node, for --join ssh://user@host",
		Long: `Connects stdin and stdout to the running node.

It is what meshd up --join ssh://user@host runs on that host: the other node's packets come over ssh as they would come
by UDP, and nothing is trusted that would not be trusted there.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.stdio(cmd.Context()) },
	}
}

// stdio carries until one side ends.
func (a *app) stdio(ctx context.Context) error {
	from, _, _ := strings.Cut(a.getenv("SSH_CONNECTION"), " ")
	conn, err := a.client().Stream(ctx, from)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(a.stdout, mesh.StdioPreamble); err != nil {
		return err
	}
	a.join(ctx, conn)
	return nil
}

// join carries between stdin and stdout and a connection until one of them ends.
func (a *app) join(ctx context.Context, conn io.ReadWriter) {
	done := make(chan struct{}, 2)
	carry := func(to io.Writer, from io.Reader) {
		_, _ = io.Copy(to, from) // the end of either is the end
		done <- struct{}{}
	}
	go carry(conn, a.stdin)
	go carry(a.stdout, conn)
	select {
	case <-done: // reading stdin cannot be ended; the process is about to
	case <-ctx.Done():
	}
}
