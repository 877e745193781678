package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
)

// newGraph is `meshd graph`.
func newGraph(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "graph",
		Short:   "Draw the members and this node's live paths, for Graphviz",
		Example: "  meshd graph | dot -Tsvg > mesh.svg",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			s.Canonical()
			g := graphOf(s)
			if a.flags.json {
				return printJSON(a.stdout, g)
			}
			a.printf("%s", g.dot())
			return nil
		},
	}
}

// graph is the members and the paths that this node sees.
type graph struct {
	Network string      `json:"network"`
	Members []graphNode `json:"members"`
	Paths   []graphEdge `json:"paths"`
}

type graphNode struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
	// State is a peer's, or "self".
	State string `json:"state"`
}

// graphEdge is one hop of a path to a member, between two ids.
type graphEdge struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Transport string `json:"transport"`
	// Relayed says that a relay is at one end of it.
	Relayed   bool    `json:"relayed"`
	RTTMillis float64 `json:"rtt_ms"` // of the whole path; 0 on the hops before the last
}

// graphOf draws what a status tells.
func graphOf(s *api.Status) graph {
	g := graph{Network: s.Network.Name, Members: []graphNode{}, Paths: []graphEdge{}}
	g.Members = append(g.Members, graphNode{ID: s.Self.ID, Name: s.Self.Name, Roles: s.Self.Roles, State: "self"})
	ids := map[string]string{s.Self.Name: s.Self.ID}
	for _, p := range s.Peers {
		g.Members = append(g.Members, graphNode{ID: p.ID, Name: p.Name, Roles: p.Roles, State: string(p.State)})
		ids[p.Name] = p.ID
	}
	seen := map[[2]string]bool{}
	for _, p := range s.Peers {
		if !p.State.Connected() {
			continue
		}
		from := s.Self.ID
		for _, relay := range p.Via {
			to, ok := ids[relay]
			if !ok || to == from {
				continue
			}
			if !seen[[2]string{from, to}] {
				seen[[2]string{from, to}] = true
				g.Paths = append(g.Paths, graphEdge{From: from, To: to, Transport: p.Transport, Relayed: true})
			}
			from = to
		}
		g.Paths = append(g.Paths, graphEdge{
			From: from, To: p.ID, Transport: p.Transport, Relayed: len(p.Via) > 0, RTTMillis: p.RTTMillis,
		})
	}
	return g
}

// dot is the graph in Graphviz's language.
func (g graph) dot() string {
	var b strings.Builder
	fmt.Fprintf(&b, "graph %s {\n  node [shape=box style=rounded];\n", quote(g.Network))
	for _, m := range g.Members {
		attrs := "label=" + quote(m.Name+"\n"+m.State)
		switch m.State {
		case "self":
			attrs += " penwidth=2"
		case string(api.StateOffline):
			attrs += " style=\"rounded,dashed\" fontcolor=gray"
		}
		fmt.Fprintf(&b, "  %s [%s];\n", quote(m.ID), attrs)
	}
	for _, e := range g.Paths {
		label, style := e.Transport, ""
		if e.RTTMillis > 0 {
			label += fmt.Sprintf(" %.1f ms", e.RTTMillis)
		}
		if e.Relayed {
			style = " style=dashed"
		}
		fmt.Fprintf(&b, "  %s -- %s [label=%s%s];\n", quote(e.From), quote(e.To), quote(label), style)
	}
	b.WriteString("}\n")
	return b.String()
}

// quote makes a string of Graphviz's language. Names are members' choice.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, line := range strings.Split(s, "\n") {
		if i > 0 {
			b.WriteString(`\n`)
		}
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(clean(line)))
	}
	b.WriteByte('"')
	return b.String()
}
