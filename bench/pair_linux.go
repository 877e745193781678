package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
)

// Addresses of the hosts on the veth pair, and on what a variant makes.
var (
	under = [2]addresses{
		{v4: netip.MustParsePrefix("198.18.0.1/24"), v6: netip.MustParsePrefix("2001:db8::1/64")},
		{v4: netip.MustParsePrefix("198.18.0.2/24"), v6: netip.MustParsePrefix("2001:db8::2/64")},
	}
	over = [2]addresses{
		{v4: netip.MustParsePrefix("10.99.0.1/24"), v6: netip.MustParsePrefix("fd99::1/64")},
		{v4: netip.MustParsePrefix("10.99.0.2/24"), v6: netip.MustParsePrefix("fd99::2/64")},
	}
)

// half are the addresses on the veth pairs to a host in between: of the hosts, and of that one.
var half = [2][2]addresses{
	{
		{v4: netip.MustParsePrefix("198.18.1.1/24"), v6: netip.MustParsePrefix("2001:db8:1::1/64")},
		{v4: netip.MustParsePrefix("198.18.1.2/24"), v6: netip.MustParsePrefix("2001:db8:1::2/64")},
	},
	{
		{v4: netip.MustParsePrefix("198.18.2.1/24"), v6: netip.MustParsePrefix("2001:db8:2::1/64")},
		{v4: netip.MustParsePrefix("198.18.2.2/24"), v6: netip.MustParsePrefix("2001:db8:2::2/64")},
	},
}

// wire is the name of the veth at both hosts.
const wire = "wire0"

// addresses of one host.
type addresses struct{ v4, v6 netip.Prefix }

// Pair is two hosts with a veth pair between them and nothing else.
type Pair struct {
	Hosts [2]*lab.Host // a and b
	Dir   string       // for files of the variant; goes with the pair
	Began time.Time    // when the last program of the variant was started: set by Mark

	lab      *lab.Lab
	network  *lab.Network
	offloads bool
	running  []*exec.Cmd
	inputs   []io.Closer // standard inputs, which end some programs when they end
}

// newPair makes the hosts.
func newPair(ctx context.Context, offloads bool) (p *Pair, err error) {
	dir, err := os.MkdirTemp("", "meshd-bench-")
	if err != nil {
		return nil, err
	}
	p = &Pair{Dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.lab, err = lab.New(lab.Options{Name: "bench"}); err != nil {
		return p, err
	}
	p.network = p.lab.Internet("isp")
	p.Hosts = [2]*lab.Host{p.network.Host("a", lab.HostConfig{V4: true}), p.network.Host("b", lab.HostConfig{V4: true})}
	if err = p.lab.Ready(ctx); err != nil {
		return p, err
	}
	for _, h := range p.Hosts {
		if err = p.prepare(h); err != nil {
			return p, err
		}
	}
	return p, p.connect(ctx, offloads)
}

func (p *Pair) prepare(h *lab.Host) error {
	if err := h.Do(prepareHost); err != nil {
		return fmt.Errorf("prepare host %s: %w", h.Name(), err)
	}
	return os.Mkdir(p.File(h, ""), 0o700)
}

// Between puts a third host between the two, which from then on reach it and not each other.
func (p *Pair) Between(ctx context.Context) (*lab.Host, error) {
	h := p.network.Host("r", lab.HostConfig{V4: true})
	if err := p.lab.Ready(ctx); err != nil {
		return nil, err
	}
	if err := p.prepare(h); err != nil {
		return nil, err
	}
	err := p.Hosts[0].Do(func() error {
		link, err := netlink.LinkByName(wire)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link) // with its routes
	})
	if err != nil {
		return nil, fmt.Errorf("cut %s: %w", wire, err)
	}
	for i, end := range p.Hosts {
		if err := p.cable(ctx, [2]*lab.Host{end, h}, [2]string{"left", "right"}[i], [2]addresses{half[i][0], half[i][1]}); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// prepareHost unplugs the host from the lab's network, and sets what is set before an interface is made.
func prepareHost() error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(eth0); err != nil {
		return err
	}
	return setParameters(map[string]string{
		"ipv6/conf/all/disable_ipv6":             "0",
		"ipv6/conf/default/disable_ipv6":         "0",
		"ipv6/conf/default/accept_dad":           "0",
		"ipv6/conf/default/accept_ra":            "0",
		"ipv6/conf/default/router_solicitations": "0",
	})
}

// setParameters sets parameters of the calling thread's namespace, named as under /proc/sys/net.
func setParameters(values map[string]string) error {
	for key, value := range values {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// File is a path for a file of a host's program.
func (p *Pair) File(h *lab.Host, name string) string { return filepath.Join(p.Dir, h.Name(), name) }

// Write writes a file of a host's program and returns its path.
func (p *Pair) Write(h *lab.Host, name, content string) (string, error) {
	path := p.File(h, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// Mark is called just before the last program is started: the time to the first ping counts from here.
func (p *Pair) Mark() { p.Began = time.Now() }

// Run starts a program that runs until the pair is closed. It returns its process id.
func (p *Pair) Run(h *lab.Host, name string, args ...string) (int, error) {
	log, err := os.Create(p.File(h, filepath.Base(name)+fmt.Sprintf("-%d.log", len(p.running))))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := h.Command(context.Background(), name, args...)
	cmd.Dir = p.Dir
	cmd.Stdout, cmd.Stderr = log, log
	input, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	p.inputs = append(p.inputs, input)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s on %s: %w", name, h.Name(), err)
	}
	p.running = append(p.running, cmd)
	return cmd.Process.Pid, nil
}

// AwaitLink waits for an interface that a program makes, gives it addresses and, when mtu is not 0, an MTU.
func (p *Pair) AwaitLink(ctx context.Context, host int, name string, mtu int) error {
	h := p.Hosts[host]
	err := poll(ctx, func() bool {
		return h.Do(func() error {
			_, err := netlink.LinkByName(name)
			return err
		}) == nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s on %s: %w\n%s", name, h.Name(), err, p.Logs())
	}
	return h.Do(func() error {
		if mtu != 0 {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMTU(link, mtu); err != nil {
				return fmt.Errorf("set MTU of %s: %w", name, err)
			}
		}
		return number(name, over[host])
	})
}

// Logs is what the programs have printed last.
func (p *Pair) Logs() string {
	const most = 2000
	var all string
	logs, _ := filepath.Glob(filepath.Join(p.Dir, "*", "*.log")) // the pattern is right
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if len(text) > most {
			text = text[len(text)-most:]
		}
		all += filepath.Base(path) + ":\n" + string(text)
	}
	return all
}

// Close ends everything that runs on the hosts, and removes them.
func (p *Pair) Close() error {
	var err error
	if p.lab != nil {
		err = p.lab.Close()
	}
	for _, input := range p.inputs {
		_ = input.Close() // its program is dead
	}
	for _, cmd := range p.running {
		_ = cmd.Wait() // the lab has killed it
	}
	return errors.Join(err, os.RemoveAll(p.Dir))
}

// poll waits until a condition holds.
func poll(ctx context.Context, holds func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// loopback is where programs listen for their own tools.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// dialFrom connects from a host.
func dialFrom(h *lab.Host) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = h.Do(func() error {
			c, err = new(net.Dialer).DialContext(ctx, network, addr)
			return err
		})
		return c, err
	}
}

// awaitPort waits until a program listens on a TCP port of a host. It does not connect: iperf3 serves one client at a
// time, and would take that for one.
func awaitPort(ctx context.Context, h *lab.Host, port uint16) error {
	err := poll(ctx, func() bool {
		found := false
		err := h.Do(func() error {
			for _, table := range []string{"tcp", "tcp6"} {
				text, err := os.ReadFile("/proc/thread-self/net/" + table)
				if err != nil {
					return err
				}
				found = found || listens(string(text), port)
			}
			return nil
		})
		return err == nil && found
	})
	if err != nil {
		return fmt.Errorf("wait for port %d of %s: %w", port, h.Name(), err)
	}
	return nil
}

// listens looks for a listening socket in the content of /proc/net/tcp or tcp6.
func listens(table string, port uint16) bool {
	const listening = "0A"
	suffix := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > 3 && strings.HasSuffix(fields[1], suffix) && fields[3] == listening {
			return true
		}
	}
	return false
}
