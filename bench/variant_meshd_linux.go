package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"meshd/integration/lab"
)

// fittedMTU is one with which frames fit into the veth's packets as they are.
const fittedMTU = 1400

// meshd is this project's program.
type meshd struct {
	mtu    int // of the segment; 0 for the default, 1500
	binary string
	nodes  [2]*lab.Node // of the last Start
}

func (m *meshd) Name() string {
	if m.mtu != 0 {
		return "meshd-mtu" + strconv.Itoa(m.mtu)
	}
	return "meshd"
}

func (m *meshd) About() string {
	if m.mtu != 0 {
		return "meshd with an MTU that fits the path"
	}
	return "meshd, MTU 1500"
}

// Find builds the program, unless its path is given.
func (m *meshd) Find(ctx context.Context, t *Tools) (err error) {
	if m.binary = t.Paths["meshd"]; m.binary != "" {
		return nil
	}
	m.binary, err = lab.Build(ctx, t.Dir, "meshd/cmd/meshd", "-trimpath")
	return err
}

// Start founds a network on one host and joins it from the other.
func (m *meshd) Start(ctx context.Context, p *Pair) (*Tunnel, error) { return m.start(ctx, p) }

// start is Start with more flags for the founder.
func (m *meshd) start(ctx context.Context, p *Pair, more ...string) (*Tunnel, error) {
	nodes := &m.nodes
	for i, h := range p.Hosts {
		nodes[i] = lab.NewNode(h, m.binary, p.File(h, "state"))
	}
	found := append([]string{"--no-portmap"}, more...)
	if m.mtu != 0 {
		found = append(found, "--mtu", strconv.Itoa(m.mtu))
	}
	if err := nodes[0].Up(found...); err != nil {
		return nil, err
	}
	if err := nodes[0].Ready(ctx); err != nil {
		return nil, err
	}
	invite, err := nodes[0].Run(ctx, "invite")
	if err != nil {
		return nil, err
	}
	p.Mark()
	if err := nodes[1].UpWithInput(strings.NewReader(invite), "--join", "-", "--no-portmap"); err != nil {
		return nil, err
	}
	t := &Tunnel{}
	for i, n := range nodes {
		if err := n.Ready(ctx); err != nil {
			return nil, err
		}
		t.PIDs[i] = []int{n.PID()}
		if t.V6[i], err = meshAddress(ctx, n); err != nil {
			return nil, err
		}
		t.V4[i] = over[i].v4.Addr()
		// meshd gives IPv6 addresses only. The other addresses are those of a user who wants IPv4, too.
		if err := p.AwaitLink(ctx, i, "mesh0", 0); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// meshAddress asks a node for its address.
func meshAddress(ctx context.Context, n *lab.Node) (netip.Addr, error) {
	var status struct {
		Self struct {
			Addresses []netip.Addr `json:"addresses"`
		} `json:"self"`
	}
	if err := n.JSON(ctx, &status, "status"); err != nil {
		return netip.Addr{}, err
	}
	if len(status.Self.Addresses) == 0 {
		return netip.Addr{}, errors.New("meshd has no address")
	}
	if a := status.Self.Addresses[0]; a.Is6() {
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("meshd's address %v is not IPv6", status.Self.Addresses[0])
}
