package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"meshd/bench/report"
	"meshd/mesh/api"
)

// overTLS is meshd on two hosts between which no UDP passes: its datagrams go over TLS on TCP port 443.
type overTLS struct{ meshd }

// Name is report.OverTLS.
func (*overTLS) Name() string { return report.OverTLS }

// About says what it is.
func (*overTLS) About() string { return "meshd, over TLS on TCP port 443 for want of UDP" }

// Find wants nft besides.
func (o *overTLS) Find(ctx context.Context, t *Tools) error {
	return errors.Join(o.meshd.Find(ctx, t), t.Package(ctx, "nftables", "nft"))
}

// Start takes UDP from the veth pair before it starts meshd.
func (o *overTLS) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	for _, h := range p.Hosts {
		cmd := h.Command(ctx, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader("table inet firewall { chain out { type filter hook output priority 0; oifname \"" + wire + "\" meta l4proto udp drop; }; }\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("block UDP on %s: %w: %s", h.Name(), err, out)
		}
	}
	t, err := o.start(ctx, p, "--listen-tls", ":443")
	if err != nil {
		return nil, err
	}
	return t, o.awaitTLS(ctx)
}

// awaitTLS waits until each says that it reaches the other so.
func (o *overTLS) awaitTLS(ctx context.Context) error {
	for _, n := range o.nodes {
		last := ""
		err := poll(ctx, func() bool {
			var status api.Status
			if n.JSON(ctx, &status, "status") != nil || len(status.Peers) != 1 {
				return false
			}
			last = fmt.Sprintf("%s %s", status.Peers[0].State, status.Peers[0].Transport)
			return last == string(api.StateDirect)+" tcp"
		})
		if err != nil {
			return fmt.Errorf("wait until %s reaches the other over TLS (now %q): %w", n.Host.Name(), last, err)
		}
	}
	return nil
}
