package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"meshd/bench/report"
	"meshd/integration/lab"
	"meshd/mesh/api"
)

// between is meshd on two hosts with a third in between: a member that relays, or for comparison the least program that
// forwards datagrams.
type between struct {
	meshd
	relay bool
}

// Name is report.Relayed or report.Forwarded.
func (b *between) Name() string {
	if b.relay {
		return report.Relayed
	}
	return report.Forwarded
}

// About says what it is.
func (b *between) About() string {
	if b.relay {
		return "meshd, through a third member that relays"
	}
	return "meshd, through a third host with a minimal forwarder of datagrams"
}

// Start puts a host between the two, and has them meet through it.
func (b *between) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	r, err := p.Between(ctx)
	if err != nil {
		return nil, err
	}
	for i, h := range p.Hosts {
		b.nodes[i] = lab.NewNode(h, b.binary, p.File(h, "state"))
	}
	t := &Tunnel{}
	if b.relay {
		err = b.throughMember(ctx, p, r, t)
	} else {
		err = b.throughForwarder(ctx, p, r, t)
	}
	if err != nil {
		return nil, err
	}
	for i, n := range b.nodes {
		t.PIDs[i] = []int{n.PID()}
		if t.V6[i], err = meshAddress(ctx, n); err != nil {
			return nil, err
		}
		t.V4[i] = over[i].v4.Addr()
		if err := p.AwaitLink(ctx, i, "mesh0", 0); err != nil {
			return nil, err
		}
	}
	want := api.StateDirect
	if b.relay {
		want = api.StateRelayed
	}
	return t, b.awaitState(ctx, p, t, want)
}

// throughMember founds the network in the middle, where both hosts join.
func (b *between) throughMember(ctx context.Context, p *Pair, r *lab.Host, t *Tunnel) error {
	middle := lab.NewNode(r, b.binary, p.File(r, "state"))
	if err := middle.Up("--no-portmap"); err != nil {
		return err
	}
	if err := middle.Ready(ctx); err != nil {
		return err
	}
	invite, err := middle.Run(ctx, "invite", "--uses", "2")
	if err != nil {
		return err
	}
	t.Middle = []int{middle.PID()}
	for i, n := range b.nodes {
		if i == 1 {
			p.Mark()
		}
		if err := n.UpWithInput(strings.NewReader(invite), "--join", "-", "--no-portmap"); err != nil {
			return err
		}
		if err := n.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// throughForwarder founds it on one host, which the other takes for the host in the middle.
func (b *between) throughForwarder(ctx context.Context, p *Pair, r *lab.Host, t *Tunnel) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ends := make([]string, 2)
	for i := range ends {
		ends[i] = netip.AddrPortFrom(half[i][0].v4.Addr(), meshdPort).String()
	}
	pid, err := p.Run(r, self, forwardCommand, ends[0], ends[1])
	if err != nil {
		return err
	}
	t.Middle = []int{pid}
	if err := b.nodes[0].Up("--no-portmap", "--advertise", netip.AddrPortFrom(half[1][1].v4.Addr(), meshdPort).String()); err != nil {
		return err
	}
	if err := b.nodes[0].Ready(ctx); err != nil {
		return err
	}
	invite, err := b.nodes[0].Run(ctx, "invite")
	if err != nil {
		return err
	}
	p.Mark()
	if err := b.nodes[1].UpWithInput(strings.NewReader(invite), "--join", "-", "--no-portmap"); err != nil {
		return err
	}
	return b.nodes[1].Ready(ctx)
}

// awaitState sends pings until the hosts are connected as they are to be.
func (b *between) awaitState(ctx context.Context, p *Pair, t *Tunnel, want api.PeerState) error {
	pinger, err := p.Hosts[0].Pinger(t.V4[1], lab.PingOptions{})
	if err != nil {
		return err
	}
	defer pinger.Close()
	address := t.V6[1].String()
	var last string
	err = poll(ctx, func() bool {
		var status api.Status
		if b.nodes[0].JSON(ctx, &status, "status") != nil {
			return false
		}
		for _, peer := range status.Peers {
			if len(peer.Addresses) > 0 && peer.Addresses[0].String() == address {
				last = string(peer.State)
				return peer.State == want
			}
		}
		return false
	})
	if err != nil {
		return fmt.Errorf("wait until the hosts are %s (they are %q): %w", want, last, err)
	}
	return nil
}
