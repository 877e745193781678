package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"meshd/integration/lab"
)

// openvpn is OpenVPN between two hosts with TLS and a TAP.
type openvpn struct{}

func (*openvpn) Name() string  { return "openvpn" }
func (*openvpn) About() string { return "OpenVPN 2.6, TAP, AES-256-GCM, MTU 1500" }
func (*openvpn) Find(ctx context.Context, t *Tools) error {
	return t.Package(ctx, "openvpn", "openvpn")
}

func (*openvpn) Start(ctx context.Context, p *Pair) (*Tunnel, error) {
	authority, err := newAuthority()
	if err != nil {
		return nil, err
	}
	var pids [2][]int
	for i, h := range p.Hosts {
		role := []string{"--tls-server", "--dh", "none"}
		if i == 1 {
			role = []string{"--tls-client"}
		}
		files, err := authority.issue(p, h)
		if err != nil {
			return nil, err
		}
		args := append([]string{
			"--dev", tap, "--dev-type", "tap", "--proto", "udp4", "--port", "1194",
			"--local", under[i].v4.Addr().String(), "--remote", under[1-i].v4.Addr().String(),
			"--data-ciphers", "AES-256-GCM", "--cipher", "AES-256-GCM", "--ping", "10",
		}, append(role, files...)...)
		p.Mark()
		pid, err := p.Run(h, "openvpn", args...)
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

// authority signs the certificates of the two hosts.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificate("authority", 1)
	template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &authority{cert: template, key: key, pem: encodePEM("CERTIFICATE", der)}, nil
}

func certificate(name string, serial int64) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// issue writes a host's files and returns the options that name them.
func (a *authority) issue(p *Pair, h *lab.Host) ([]string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate(h.Name(), time.Now().UnixNano()), a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var options []string
	for _, f := range []struct{ option, content string }{
		{"ca", a.pem},
		{"cert", encodePEM("CERTIFICATE", der)},
		{"key", encodePEM("PRIVATE KEY", private)},
	} {
		path, err := p.Write(h, "openvpn."+f.option, f.content)
		if err != nil {
			return nil, fmt.Errorf("write OpenVPN's files: %w", err)
		}
		options = append(options, "--"+f.option, path)
	}
	return options, nil
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
