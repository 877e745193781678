package main

import (
	"context"
	"fmt"
	"regexp"
)

// fastd is what mesh communities use between routers.
type fastd struct{}

// fastdMTU fits Ethernet, fastd's header, UDP and IPv4 into 1500 bytes.
const fastdMTU = 1426

func (*fastd) Name() string  { return "fastd" }
func (*fastd) About() string { return "fastd, TAP, salsa2012+umac, MTU 1426" }
func (*fastd) Find(ctx context.Context, t *Tools) error {
	return t.Package(ctx, "fastd", "fastd")
}

func (*fastd) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	pair := regexp.MustCompile(`(?s)([0-9a-f]{64}).*?([0-9a-f]{64})`)
	var secret, public [2]string
	for i, h := range p.Hosts {
		out, err := h.Command(ctx, "fastd", "--generate-key").Output()
		if err != nil {
			return nil, fmt.Errorf("make fastd's key: %w", err)
		}
		m := pair.FindStringSubmatch(string(out))
		if m == nil {
			return nil, fmt.Errorf("make fastd's key: no keys in %q", out)
		}
		secret[i], public[i] = m[1], m[2]
	}
	var pids [2][]int
	for i, h := range p.Hosts {
		config := fmt.Sprintf("mode tap;\ninterface %q;\nmtu %d;\nbind %v:10000;\nmethod \"salsa2012+umac\";\nsecret %q;\npeer %q { key %q; remote %v:10000; }\n",
			tap, fastdMTU, under[i].v4.Addr(), secret[i], p.Hosts[1-i].Name(), public[1-i], under[1-i].v4.Addr())
		path, err := p.Write(h, "fastd.conf", config)
		if err != nil {
			return nil, err
		}
		p.Mark()
		pid, err := p.Run(h, "fastd", "-c", path)
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
