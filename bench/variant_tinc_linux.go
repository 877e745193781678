package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// tinc is version 1.0 in switch mode.
type tinc struct{}

func (*tinc) Name() string  { return "tinc" }
func (*tinc) About() string { return "tinc 1.0, switch mode, default ciphers" }
func (*tinc) Find(ctx context.Context, t *Tools) error {
	return t.Package(ctx, "tinc", "tincd")
}

func (*tinc) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	var public [2]string
	for i, h := range p.Hosts {
		config := fmt.Sprintf("Name = %s\nMode = switch\nDeviceType = tap\nInterface = %s\nAddressFamily = ipv4\n", h.Name(), tap)
		if i == 1 {
			config += "ConnectTo = a\n"
		}
		if _, err := p.Write(h, "tinc/tinc.conf", config); err != nil {
			return nil, err
		}
		own, err := p.Write(h, "tinc/hosts/"+h.Name(), fmt.Sprintf("Address = %v\n", under[i].v4.Addr()))
		if err != nil {
			return nil, err
		}
		if out, err := h.Command(ctx, "tincd", "-c", p.File(h, "tinc"), "-K2048").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make tinc's key: %w: %s", err, lastLine(out))
		}
		text, err := os.ReadFile(own)
		if err != nil {
			return nil, err
		}
		public[i] = string(text)
	}
	var pids [2][]int
	for i, h := range p.Hosts {
		other := p.Hosts[1-i].Name()
		if _, err := p.Write(h, filepath.Join("tinc/hosts", other), public[1-i]); err != nil {
			return nil, err
		}
		p.Mark()
		pid, err := p.Run(h, "tincd", "-c", p.File(h, "tinc"), "--pidfile="+p.File(h, "tinc.pid"), "-D")
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
