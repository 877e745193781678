package main

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
)

// nebula is layer 3. Its paths are given by flag.
type nebula struct{ binary, cert string }

func (*nebula) Name() string  { return "nebula" }
func (*nebula) About() string { return "Nebula, layer 3, AES-256-GCM, MTU 1300 (its default)" }

// Find takes nebula-cert from the folder where nebula is.
func (n *nebula) Find(_ context.Context, t *Tools) (err error) {
	if n.binary, err = t.Path("nebula"); err != nil {
		return err
	}
	n.cert, err = exec.LookPath(filepath.Join(filepath.Dir(n.binary), "nebula-cert"))
	return err
}

// Start makes host a the lighthouse. Nebula carries IPv4 only, unless its certificates are of the second version.
func (n *nebula) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	a := p.Hosts[0]
	ca := []string{"-ca-crt", p.File(a, "ca.crt"), "-ca-key", p.File(a, "ca.key")}
	if out, err := a.Command(ctx, n.cert, "ca", "-name", "bench", "-out-crt", ca[1], "-out-key", ca[3]).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make Nebula's authority: %w: %s", err, lastLine(out))
	}
	var pids [2][]int
	for i, h := range p.Hosts {
		crt, key := p.File(h, "node.crt"), p.File(h, "node.key")
		sign := append([]string{"sign", "-name", h.Name(), "-ip", over[i].v4.String(), "-out-crt", crt, "-out-key", key}, ca...)
		if out, err := h.Command(ctx, n.cert, sign...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make Nebula's certificate: %w: %s", err, lastLine(out))
		}
		house := "{am_lighthouse: true}"
		if i == 1 {
			house = fmt.Sprintf("{am_lighthouse: false, interval: 10, hosts: [%q]}", over[0].v4.Addr())
		}
		config := fmt.Sprintf("pki: {ca: %q, cert: %q, key: %q}\nstatic_host_map: {%q: [\"%v:4242\"]}\nlighthouse: %s\n"+
			"listen: {host: 0.0.0.0, port: 4242}\ntun: {dev: %s, mtu: 1300}\nfirewall:\n  outbound: [{port: any, proto: any, host: any}]\n"+
			"  inbound: [{port: any, proto: any, host: any}]\n",
			ca[1], crt, key, over[0].v4.Addr(), under[0].v4.Addr(), house, tap)
		path, err := p.Write(h, "nebula.yml", config)
		if err != nil {
			return nil, err
		}
		p.Mark()
		pid, err := p.Run(h, n.binary, "-config", path)
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
