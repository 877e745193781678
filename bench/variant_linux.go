package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Variant is one way to connect the two hosts of a pair.
type Variant interface {
	Name() string
	About() string // what it is, in a few words
	// Find looks for the programs, or makes them. Its error says why the variant is not available.
	Find(ctx context.Context, t *Tools) error
	// Start starts the programs on both hosts, calls Mark before the last one, and returns when the addresses are set.
	Start(ctx context.Context, p *Pair) (*Tunnel, error)
}

// Tunnel is a variant that runs. It ends with its pair.
type Tunnel struct {
	V4, V6 [2]netip.Addr // of the hosts; invalid where the variant carries no IPv6
	PIDs   [2][]int      // the programs on each host: these and their descendants; none for the kernel
	Middle []int         // those on a host in between
}

// tunnel is one with the usual addresses.
func tunnel(a, b []int) *Tunnel {
	return &Tunnel{
		V4:   [2]netip.Addr{over[0].v4.Addr(), over[1].v4.Addr()},
		V6:   [2]netip.Addr{over[0].v6.Addr(), over[1].v6.Addr()},
		PIDs: [2][]int{a, b},
	}
}

// all are the programs of all hosts.
func (t *Tunnel) all() []int { return slices.Concat(t.PIDs[0], t.PIDs[1], t.Middle) }

// tap is the name of the interface that a variant makes.
const tap = "tap0"

// Tools is what variants find their programs by.
type Tools struct {
	Dir     string            // for what is built
	Install bool              // with apt
	Paths   map[string]string // of programs that are in no package, given by flag
}

// Package looks for programs, and installs the Debian package that has them when they are missing.
func (t *Tools) Package(ctx context.Context, name string, programs ...string) error {
	missing := func() error {
		for _, p := range programs {
			if _, err := exec.LookPath(p); err != nil {
				return fmt.Errorf("no program %q (Debian package %s)", p, name)
			}
		}
		return nil
	}
	err := missing()
	if err == nil || !t.Install {
		return err
	}
	if _, lookErr := exec.LookPath("apt-get"); lookErr != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "apt-get", "install", "-y", "-q", "--no-install-recommends", name)
	cmd.Env = append(cmd.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, aptErr := cmd.CombinedOutput(); aptErr != nil {
		return fmt.Errorf("%w; apt-get install %s: %w: %s", err, name, aptErr, lastLine(out))
	}
	return missing()
}

// Path returns a program that is given by flag, or found.
func (t *Tools) Path(program string) (string, error) {
	if path := t.Paths[program]; path != "" {
		return exec.LookPath(path)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", errors.New("no program " + program + ": give its path by flag")
	}
	return path, nil
}

func lastLine(out []byte) string {
	last := ""
	for i, j := 0, 0; j <= len(out); j++ {
		if j == len(out) || out[j] == '\n' {
			if j > i {
				last = string(out[i:j])
			}
			i = j + 1
		}
	}
	return last
}

// variants are all that there are, in the order of the tables.
func variants() []Variant {
	return []Variant{
		&veth{}, &vxlan{}, &wireguard{}, &wireguard{vxlan: true},
		&tinc{}, &fastd{}, &openvpn{}, &n2n{}, &vde{},
		&zeroTier{}, &nebula{}, &easyTier{}, &meshd{}, &meshd{mtu: fittedMTU}, &between{relay: true}, &between{}, &overTLS{},
	}
}

// revision is that of the tree which the program under test is built from; "" when it cannot be found out.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
