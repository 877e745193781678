package main

import (
	"context"
	"fmt"
	"net/netip"
)

// easyTier is layer 3. Its path is given by flag.
type easyTier struct{ binary string }

func (*easyTier) Name() string  { return "easytier" }
func (*easyTier) About() string { return "EasyTier, layer 3, over UDP" }

func (e *easyTier) Find(_ context.Context, t *Tools) (err error) {
	e.binary, err = t.Path("easytier-core")
	return err
}

func (e *easyTier) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	const port = 11010
	var pids [2][]int
	for i, h := range p.Hosts {
		args := []string{
			"--network-name", "bench", "--network-secret", "secret", "--hostname", h.Name(), "--dev-name", tap,
			"--ipv4", over[i].v4.Addr().String(), "--listeners", fmt.Sprintf("udp://0.0.0.0:%d", port),
		}
		if i == 1 {
			args = append(args, "--peers", fmt.Sprintf("udp://%v:%d", under[0].v4.Addr(), port))
		}
		p.Mark()
		pid, err := p.Run(h, e.binary, args...)
		if err != nil {
			return nil, err
		}
		pids[i] = []int{pid}
		if err := p.AwaitLink(ctx, i, tap, 0); err != nil {
			return nil, err
		}
	}
	t := tunnel(pids[0], pids[1])
	t.V6 = [2]netip.Addr{}
	return t, nil
}
