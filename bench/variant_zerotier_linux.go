package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
)

// zeroTier has its controller on host a, which is also the root (moon) of both. Its path is given by flag.
type zeroTier struct{ binary string }

func (*zeroTier) Name() string  { return "zerotier" }
func (*zeroTier) About() string { return "ZeroTier, MTU 2800 (its default), controller on host a" }

func (z *zeroTier) Find(_ context.Context, t *Tools) (err error) {
	z.binary, err = t.Path("zerotier-one")
	return err
}

const zeroTierPort = 9993

func (z *zeroTier) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	if err := z.moon(ctx, p); err != nil {
		return nil, err
	}
	var pids [2][]int
	network := ""
	for i, h := range p.Hosts {
		p.Mark()
		pid, err := p.Run(h, z.binary, "-U", fmt.Sprintf("-p%d", zeroTierPort), p.File(h, "zt"))
		if err != nil {
			return nil, err
		}
		pids[i] = []int{pid}
		if err := awaitPort(ctx, h, zeroTierPort); err != nil {
			return nil, err
		}
		if i == 0 {
			if network, err = z.network(ctx, p); err != nil {
				return nil, err
			}
		}
		if err := z.call(ctx, p, h, "/network/"+network, map[string]any{"allowManaged": true}, nil); err != nil {
			return nil, err
		}
		name, err := awaitPrefix(ctx, h, "zt")
		if err != nil {
			return nil, err
		}
		if err := p.AwaitLink(ctx, i, name, 0); err != nil {
			return nil, err
		}
	}
	return tunnel(pids[0], pids[1]), nil
}

// moon makes the hosts' identities, and a world of their own with host a as its root: they cannot reach ZeroTier's.
func (z *zeroTier) moon(ctx context.Context, p *Pair) error {
	for _, h := range p.Hosts {
		if err := os.MkdirAll(p.File(h, "zt/moons.d"), 0o700); err != nil {
			return err
		}
		out, err := h.Command(ctx, z.binary, "-i", "generate", p.File(h, "zt/identity.secret"), p.File(h, "zt/identity.public")).CombinedOutput()
		if err != nil {
			return fmt.Errorf("make ZeroTier's identity: %w: %s", err, lastLine(out))
		}
	}
	a := p.Hosts[0]
	out, err := a.Command(ctx, z.binary, "-i", "initmoon", p.File(a, "zt/identity.public")).Output()
	if err != nil {
		return fmt.Errorf("describe ZeroTier's moon: %w", err)
	}
	text := strings.Replace(string(out), `"stableEndpoints": []`, fmt.Sprintf(`"stableEndpoints": ["%v/%d"]`, under[0].v4.Addr(), zeroTierPort), 1)
	plan, err := p.Write(a, "moon.json", text)
	if err != nil {
		return err
	}
	gen := a.Command(ctx, z.binary, "-i", "genmoon", plan)
	gen.Dir = filepath.Dir(plan)
	if out, err := gen.CombinedOutput(); err != nil {
		return fmt.Errorf("make ZeroTier's moon: %w: %s", err, lastLine(out))
	}
	moons, err := filepath.Glob(p.File(a, "*.moon"))
	if err != nil || len(moons) != 1 {
		return fmt.Errorf("make ZeroTier's moon: %d files: %w", len(moons), err)
	}
	moon, err := os.ReadFile(moons[0])
	if err != nil {
		return err
	}
	for _, h := range p.Hosts {
		if _, err := p.Write(h, "zt/moons.d/"+filepath.Base(moons[0]), string(moon)); err != nil {
			return err
		}
	}
	return nil
}

// network makes a public one on host a's controller.
func (z *zeroTier) network(ctx context.Context, p *Pair) (string, error) {
	var status struct {
		Address string `json:"address"`
	}
	if err := z.call(ctx, p, p.Hosts[0], "/status", nil, &status); err != nil {
		return "", err
	}
	id := status.Address + "000001"
	return id, z.call(ctx, p, p.Hosts[0], "/controller/network/"+id, map[string]any{"name": "bench", "private": false}, nil)
}

// call speaks ZeroTier's local API: a POST of body, or a GET without one.
func (z *zeroTier) call(ctx context.Context, p *Pair, h *lab.Host, path string, body, answer any) error {
	token, err := os.ReadFile(p.File(h, "zt/authtoken.secret"))
	if err != nil {
		return err
	}
	method, content := http.MethodGet, []byte(nil)
	if body != nil {
		method = http.MethodPost
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%v:%d%s", loopback, zeroTierPort, path), bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("X-ZT1-Auth", strings.TrimSpace(string(token)))
	client := http.Client{Transport: &http.Transport{DialContext: dialFrom(h), DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ZeroTier's API: %s: %s", path, response.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// awaitPrefix waits for an interface whose name begins with prefix, and returns the name.
func awaitPrefix(ctx context.Context, h *lab.Host, prefix string) (name string, err error) {
	err = poll(ctx, func() bool {
		_ = h.Do(func() error { // it is asked again
			links, err := netlink.LinkList()
			for _, l := range links {
				if strings.HasPrefix(l.Attrs().Name, prefix) {
					name = l.Attrs().Name
				}
			}
			return err
		})
		return name != ""
	})
	return name, err
}
