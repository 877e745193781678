package main

import (
	"context"
	"fmt"
)

// n2n has its supernode on host a.
type n2n struct{}

func (*n2n) Name() string  { return "n2n" }
func (*n2n) About() string { return "n2n, Twofish, MTU 1400, supernode on host a" }
func (*n2n) Find(ctx context.Context, t *Tools) error {
	return t.Package(ctx, "n2n", "edge", "supernode")
}

func (*n2n) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	const port = "7654"
	if _, err := p.Run(p.Hosts[0], "supernode", "-l", port); err != nil {
		return nil, err
	}
	var pids [2][]int
	for i, h := range p.Hosts {
		p.Mark()
		pid, err := p.Run(h, "edge", "-d", tap, "-a", over[i].v4.Addr().String(), "-s", "255.255.255.0",
			"-c", "bench", "-k", "secret", "-l", fmt.Sprintf("%v:%s", under[0].v4.Addr(), port), "-p", "5000",
			"-m", fmt.Sprintf("02:00:00:00:00:%02x", i+1))
		if err != nil {
			return nil, err
		}
		pids[i] = []int{pid}
		if err := p.AwaitLink(ctx, i, tap, 0); err != nil {
			return nil, err
		}
	}
	return tunnel(pids[0], pids[1]), nil
}
