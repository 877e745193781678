package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meshd/mesh/api"
	"meshd/mesh/doctor"
)

// newStatus is `meshd status`.
func newStatus(a *app) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the network, this node and every member",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watchStatus(cmd.Context())
			}
			s, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if a.flags.json {
				return printJSON(a.stdout, s)
			}
			a.printf("%s", a.style.table(statusRows(s, a.now())))
			return nil
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on: redraw on a terminal, else print what changes")
	return cmd
}

// statusRows is a status as lines, each with what it is about in its first column.
func statusRows(s *api.Status, now time.Time) []row {
	rows := []row{networkRow(s), selfRow(s)}
	if s.Self.Bridge != nil {
		rows = append(rows, bridgeRow(s.Self.Bridge))
	}
	if s.Self.Waiting != "" {
		rows = append(rows, row{{"waiting", yellow}, {"for approval of these words: " + clean(s.Self.Waiting), plain}})
	}
	for _, p := range s.Peers {
		rows = append(rows, peerRow(p, now))
	}
	rows = append(rows, whyRows(s)...)
	for _, r := range s.Relaying {
		rows = append(rows, texts("relaying", clean(r.From), clean(r.To), byteCount(r.Bytes), bitRate(r.RateBPS)))
	}
	for _, h := range s.Health {
		rows = append(rows, healthRow(h))
	}
	return rows
}

// whyRows say of those that are reached through others why.
func whyRows(s *api.Status) (rows []row) {
	const most = 5
	more := 0
	for _, p := range s.Peers {
		switch {
		case p.State != api.StateRelayed:
		case len(rows) < most:
			rows = append(rows, texts("relayed", field(p.Name), whyRelayed(s, p)))
		default:
			more++
		}
	}
	if more > 0 {
		rows = append(rows, texts("relayed", fmt.Sprintf("%d more", more), "meshd doctor says why"))
	}
	return rows
}

// whyRelayed says for people why a member is reached through others, and what can be done.
func whyRelayed(s *api.Status, p api.Peer) string {
	why, remedy := doctor.WhyNotDirect(s.Self, p, portOf(s))
	return clean(fmt.Sprintf("%s (%s)", why, remedy))
}

// bridgeRow is the port to the LAN that this node bridges.
func bridgeRow(b *api.Bridge) row {
	c := green
	if b.State != "forwarding" {
		c = yellow
	}
	more := "forwarder " + field(b.Forwarder)
	if len(b.Beside) > 0 {
		more += ", also on this LAN: " + list(b.Beside)
	}
	return row{{"bridge", plain}, {field(b.Name), plain}, {"lan " + clean(b.Segment), dim}, {clean(b.State), c}, {more, plain}}
}

func networkRow(s *api.Status) row {
	return row{{"network", bold}, {field(s.Network.Name), plain}, {join(s.Network.Prefixes), plain}, {clean(s.Network.ID), dim}}
}

func selfRow(s *api.Status) row {
	self := s.Self
	state := cell{"ready", green}
	if !self.Ready {
		state = cell{"starting", yellow}
	}
	tap := "no TAP"
	if self.TAP != "" {
		tap = fmt.Sprintf("%s mtu %d", clean(self.TAP), self.MTU)
	}
	up := time.Duration(self.UptimeSeconds * float64(time.Second))
	more := []string{tap, "roles " + list(self.Roles), "nat " + field(self.NAT.Mapping), "up " + age(up)}
	return row{{"self", bold}, {clean(self.Name), bold}, {join(self.Addresses), plain}, state, {strings.Join(more, ", "), plain}}
}

func peerRow(p api.Peer, now time.Time) row {
	r := row{{"peer", plain}, {field(p.Name), bold}, {join(p.Addresses), plain}, {clean(string(p.State)), stateColour(p.State)}}
	if !p.State.Connected() {
		if !p.LastSeen.IsZero() {
			r = append(r, cell{"seen " + age(now.Sub(p.LastSeen)) + " ago", dim})
		}
		return r
	}
	traffic := fmt.Sprintf("tx %s %s, rx %s %s", byteCount(p.TxBytes), bitRate(p.TxBPS), byteCount(p.RxBytes), bitRate(p.RxBPS))
	return append(r, cell{pathText(p.Transport, p.Endpoint, p.Via), plain}, cell{millis(p.RTTMillis), plain},
		cell{fmt.Sprintf("mtu %d", p.PathMTU), plain}, cell{traffic, dim})
}

func healthRow(h api.Health) row {
	c := yellow
	if h.Severity == api.SeverityError {
		c = red
	}
	text := clean(h.Text)
	if h.Remedy != "" {
		text += " (" + clean(h.Remedy) + ")"
	}
	return row{{clean(string(h.Severity)), c}, {clean(h.Code), plain}, {text, plain}}
}

// stateColour is the colour of a peer's state.
func stateColour(s api.PeerState) colour {
	switch s {
	case api.StateDirect:
		return green
	case api.StateRelayed:
		return cyan
	case api.StateConnecting:
		return yellow
	case api.StateOffline:
		return red
	default:
		return dim
	}
}

// pathText is a path for people.
func pathText(transport, endpoint string, via []string) string {
	s := field(transport) + " " + field(endpoint)
	if len(via) > 0 {
		s += " via " + list(via)
	}
	return s
}

// list is names with commas between, cleaned; "-" for none.
func list(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return clean(strings.Join(names, ","))
}

// join is addresses or prefixes with commas between; "-" for none.
func join[T netip.Addr | netip.Prefix](all []T) string {
	s := make([]string, len(all))
	for i, v := range all {
		s[i] = fmt.Sprint(v)
	}
	return list(s)
}

// watchEvery is how often a watched status is asked for.
const watchEvery = time.Second

// watchStatus shows the status until the user or the daemon ends it.
func (a *app) watchStatus(ctx context.Context) error {
	ctx, stop := a.interruptible(ctx)
	defer stop()
	client, tick := a.client(), time.NewTicker(watchEvery)
	defer tick.Stop()
	var shown map[string]string
	for {
		s, err := client.Status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		switch now := a.now(); {
		case a.flags.json:
			err = printJSONLine(a.stdout, s)
		case a.live:
			_, err = fmt.Fprint(a.stdout, "\x1b[H\x1b[2J", a.style.table(statusRows(s, now)))
		default:
			shown, err = a.printChanges(shown, s, now)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// printChanges prints a line for each member that is not as it was shown last, and returns what is shown now.
func (a *app) printChanges(shown map[string]string, s *api.Status, now time.Time) (map[string]string, error) {
	at := now.UTC().Format(time.RFC3339)
	next := make(map[string]string, len(s.Peers)+1)
	self := texts("self", clean(s.Self.Name), join(s.Self.Addresses), readiness(s.Self.Ready))
	if err := a.printChange(shown, next, s.Self.ID, at, self); err != nil {
		return nil, err
	}
	for _, p := range s.Peers {
		r := texts("peer", field(p.Name), join(p.Addresses), clean(string(p.State)))
		if p.State.Connected() {
			r = append(r, cell{text: pathText(p.Transport, p.Endpoint, p.Via)})
		}
		if err := a.printChange(shown, next, p.ID, at, r); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func (a *app) printChange(shown, next map[string]string, id, at string, r row) error {
	text := a.style.table([]row{r})
	next[id] = text
	if shown[id] == text {
		return nil
	}
	_, err := fmt.Fprint(a.stdout, at, "  ", text)
	return err
}

func readiness(ready bool) string {
	if ready {
		return "ready"
	}
	return "starting"
}
