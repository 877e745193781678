package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
)

// vde is a switch of vde2 on each host and a cable through ssh between them.
type vde struct{}

func (*vde) Name() string  { return "vde2+ssh" }
func (*vde) About() string { return "vde2's switches, joined by vde_plug over OpenSSH, MTU 1500" }

// Find does not install openssh-server: that would start a server on the host.
func (*vde) Find(ctx context.Context, t *Tools) error {
	if _, err := absolute("sshd"); err != nil {
		return fmt.Errorf("%w (Debian package openssh-server, which is not installed by itself: it starts a server)", err)
	}
	if err := t.Package(ctx, "openssh-client", "ssh", "ssh-keygen"); err != nil {
		return err
	}
	return t.Package(ctx, "vde2", "vde_switch", "vde_plug")
}

func (v *vde) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	t := tunnel(nil, nil)
	for i, h := range p.Hosts {
		pid, err := p.Run(h, "vde_switch", "-s", p.File(h, "ctl"), "-t", tap)
		if err != nil {
			return nil, err
		}
		t.PIDs[i] = append(t.PIDs[i], pid)
		if err := p.AwaitLink(ctx, i, tap, 0); err != nil {
			return nil, err
		}
	}
	at := under[1].v4.Addr()
	sshd, err := v.server(ctx, p, at)
	if err != nil {
		return nil, err
	}
	t.PIDs[1] = append(t.PIDs[1], sshd)
	a, b := p.Hosts[0], p.Hosts[1]
	plug, err := absolute("vde_plug")
	if err != nil {
		return nil, err
	}
	p.Mark()
	args := append([]string{"--", "vde://" + p.File(a, "ctl"), "=", "ssh"}, v.login(p, at)...)
	cable, err := p.Run(a, "vde_plug", append(args, plug, "vde://"+p.File(b, "ctl"))...)
	if err != nil {
		return nil, err
	}
	t.PIDs[0] = append(t.PIDs[0], cable)
	return t, nil
}

// login is what ssh is given on host a to log in to the server.
func (v *vde) login(p *Pair, at netip.Addr) []string {
	return []string{
		"-i", p.File(p.Hosts[0], "user"), "-F", "none", "-T", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "BatchMode=yes", "root@" + at.String(),
	}
}

// server starts sshd on host b, at an address of its, with keys of its own and one user key.
func (v *vde) server(ctx context.Context, p *Pair, at netip.Addr) (int, error) {
	a, b := p.Hosts[0], p.Hosts[1]
	for _, key := range []string{p.File(b, "host"), p.File(a, "user")} {
		if out, err := a.Command(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("make ssh key: %w: %s", err, lastLine(out))
		}
	}
	public, err := os.ReadFile(p.File(a, "user.pub"))
	if err != nil {
		return 0, err
	}
	keys, err := p.Write(b, "authorized_keys", string(public))
	if err != nil {
		return 0, err
	}
	config, err := p.Write(b, "sshd_config", fmt.Sprintf("ListenAddress %v\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\n"+
		"PermitRootLogin prohibit-password\nPidFile none\n", at, p.File(b, "host"), keys))
	if err != nil {
		return 0, err
	}
	// sshd wants this directory, and /run is empty on a host of the lab.
	if out, err := b.Command(ctx, "mkdir", "-p", "/run/sshd").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("make /run/sshd: %w: %s", err, lastLine(out))
	}
	sshd, err := absolute("sshd")
	if err != nil {
		return 0, err
	}
	pid, err := p.Run(b, sshd, "-D", "-e", "-f", config)
	if err != nil {
		return 0, err
	}
	return pid, awaitPort(ctx, b, 22)
}

// absolute returns the absolute path of a program: sshd insists on one, and a login has another PATH.
func absolute(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
