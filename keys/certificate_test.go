package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// longRoles is as long as roles can be.
func longRoles(t testing.TB) Roles {
	t.Helper()
	roles, err := ParseRoles("admin router dhcp bridge vlan=1000,1002,1004,1006,1008,1010,1012,1014,1016,999")
	if err != nil {
		t.Fatal(err)
	}
	return roles
}

// party is a network with one signer, for tests.
type party struct {
	root   *Root
	admin  *Identity
	signer *Signer
	trust  Trust
	now    time.Time
}

func newParty(t testing.TB) *party {
	t.Helper()
	p := &party{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	p.root = must(NewRoot("home", p.now))(t)
	p.admin = must(NewIdentity())(t)
	der := must(p.root.IssueSigner(p.admin.Public(), p.now))(t)
	p.signer = must(NewSigner(p.admin, der))(t)
	p.trust = Trust{p.root.Public()}
	return p
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestChainRoundTrip(t *testing.T) {
	p := newParty(t)
	node := must(NewIdentity())(t)
	for _, tt := range []struct {
		name  string
		roles Roles
	}{
		{"a", Roles{RoleMember}},
		{"laptop-2", AllRoles()},
		{strings.Repeat("x", 63), longRoles(t)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			chain := must(p.signer.Issue(node.Public(), tt.name, tt.roles, p.now))(t)
			t.Logf("%d bytes, of which the signer's certificate is %d", len(chain), len(p.signer.Certificate()))
			crt := must(p.trust.Verify(chain, p.now))(t)
			if crt.Public != node.Public() || crt.ID != node.ID() || crt.Name != tt.name ||
				crt.Roles.String() != tt.roles.String() || crt.Signer != p.signer.ID() || !bytes.Equal(crt.Raw, chain) {
				t.Fatalf("got %+v", crt)
			}
			if got := crt.NotAfter.Sub(p.now); got != 90*24*time.Hour {
				t.Errorf("valid for %v", got)
			}
			if got := p.now.Sub(crt.NotBefore); got != time.Hour {
				t.Errorf("backdated by %v", got)
			}
		})
	}
}

// TestLongestChain holds the limit for the longest of everything, in years that
// need the longer time format as well.
func TestLongestChain(t *testing.T) {
	roles := longRoles(t)
	if len(roles) != 6 || !strings.Contains(roles.String(), vlanPrefix) {
		t.Fatalf("not all roles: %v", roles)
	}
	list, _ := strings.CutPrefix(roles[len(roles)-1], vlanPrefix)
	if len(list) != maxVLANs {
		t.Fatalf("VLAN list has %d characters, the longest has %d", len(list), maxVLANs)
	}
	for _, year := range []int{2026, 2049, 2050, 2120} {
		p := newParty(t)
		p.now = time.Date(year, 12, 31, 23, 59, 59, 0, time.UTC)
		der := must(p.root.IssueSigner(p.admin.Public(), p.now))(t)
		p.signer = must(NewSigner(p.admin, der))(t)
		for range 20 { // numbers differ in length
			node := must(NewIdentity())(t)
			chain := must(p.signer.Issue(node.Public(), strings.Repeat("n", 63), roles, p.now))(t)
			if len(chain) > MaxChain {
				t.Fatalf("%d: %d bytes", year, len(chain))
			}
			must(p.trust.Verify(chain, p.now))(t)
		}
	}
}

func TestVerifyTime(t *testing.T) {
	p := newParty(t)
	node := must(NewIdentity())(t)
	chain := must(p.signer.Issue(node.Public(), "laptop", Roles{RoleMember}, p.now))(t)
	for _, tt := range []struct {
		name string
		at   time.Duration
		want error
	}{
		{"an hour before", -time.Hour, nil},
		{"two hours before", -2 * time.Hour, ErrNotYetValid},
		{"1970", -p.now.Sub(time.Unix(0, 0)), ErrNotYetValid},
		{"last second", 90 * 24 * time.Hour, nil},
		{"after", 90*24*time.Hour + time.Second, ErrExpired},
		{"signer expired too", 11 * 365 * 24 * time.Hour, ErrExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			crt, err := p.trust.Verify(chain, p.now.Add(tt.at))
			if !errors.Is(err, tt.want) || crt == nil || crt.Name != "laptop" {
				t.Fatalf("got %v, %v", crt, err)
			}
		})
	}
	late := p.now.Add(signerLifetime - 24*time.Hour)
	chain = must(p.signer.Issue(node.Public(), "laptop", nil, late))(t)
	if crt := must(p.trust.Verify(chain, late))(t); !crt.NotAfter.Equal(p.signer.expires) {
		t.Errorf("outlives its signer: %v", crt.NotAfter)
	}
	if _, err := p.signer.Issue(node.Public(), "laptop", nil, late.Add(48*time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("expired signer issues: %v", err)
	}
}

func TestIssueRefuses(t *testing.T) {
	p := newParty(t)
	good := must(NewIdentity())(t).Public()
	with := func(change func(*Public)) Public { v := good; change(&v); return v }
	for _, tt := range []struct {
		name  string
		pub   Public
		label string
		roles Roles
	}{
		{"zero wireguard key", with(func(v *Public) { v.WireGuard = [32]byte{} }), "a", nil},
		{"low-order probe key", with(func(v *Public) { v.Probe = [32]byte{1} }), "a", nil},
		{"zero signing key", with(func(v *Public) { v.Sign = [32]byte{} }), "a", nil},
		{"capital in name", good, "Laptop", nil},
		{"dot in name", good, "a.b", nil},
		{"unknown role", good, "a", Roles{"king"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := p.signer.Issue(tt.pub, tt.label, tt.roles, p.now); err == nil {
				t.Fatal("issued")
			}
		})
	}
}

// TestVerifyRefusesEveryFlip flips each bit of a chain.
func TestVerifyRefusesEveryFlip(t *testing.T) {
	p := newParty(t)
	node := must(NewIdentity())(t)
	chain := must(p.signer.Issue(node.Public(), "laptop", AllRoles(), p.now))(t)
	for i := range len(chain) * 8 {
		bad := bytes.Clone(chain)
		bad[i/8] ^= 1 << (i % 8)
		if crt, err := p.trust.Verify(bad, p.now); err == nil || crt != nil {
			t.Fatalf("bit %d flipped: %v, %v", i, crt, err)
		}
	}
	for n := range chain {
		if crt, err := p.trust.Verify(chain[:n], p.now); err == nil || crt != nil {
			t.Fatalf("cut to %d: %v, %v", n, crt, err)
		}
	}
	if _, err := p.trust.Verify(append(bytes.Clone(chain), 0), p.now); err == nil {
		t.Fatal("trailing byte accepted")
	}
	node2 := chain[:len(chain)-len(p.signer.der)]
	for name, bad := range map[string][]byte{
		"node alone":      node2,
		"signer alone":    p.signer.der,
		"signer twice":    append(bytes.Clone(p.signer.der), p.signer.der...),
		"wrong order":     append(bytes.Clone(p.signer.der), node2...),
		"root after":      append(bytes.Clone(node2), p.root.Certificate...),
		"three":           append(bytes.Clone(chain), p.signer.der...),
		"root as signer":  append(bytes.Clone(p.root.Certificate), p.root.Certificate...),
		"other's network": func() []byte { q := newParty(t); return must(q.signer.Issue(node.Public(), "a", nil, q.now))(t) }(),
	} {
		if _, err := p.trust.Verify(bad, p.now); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

// TestVerifyRefusesForeignForms signs, with the right keys, certificates that
// meshd would not have written.
func TestVerifyRefusesForeignForms(t *testing.T) {
	p := newParty(t)
	node := must(NewIdentity())(t)
	pub := node.Public()
	fresh := func() body {
		serial := must(newSerial(p.now))(t)
		return body{serial, spanFrom(p.now, nodeLifetime), pub.Sign[:], commonName(p.signer.public())}
	}
	for name, change := range map[string]func(*body, *x509.Certificate){
		"unchanged":          func(*body, *x509.Certificate) {},
		"CA":                 func(_ *body, c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true },
		"client only":        func(_ *body, c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] },
		"any usage":          func(_ *body, c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageAny) },
		"second name":        func(_ *body, c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "b.mesh.internal") },
		"other domain":       func(_ *body, c *x509.Certificate) { c.DNSNames[0] = "a.example" },
		"bare name":          func(_ *body, c *x509.Certificate) { c.DNSNames[0] = "a" },
		"capital":            func(_ *body, c *x509.Certificate) { c.DNSNames[0] = "A.mesh.internal" },
		"two labels":         func(_ *body, c *x509.Certificate) { c.DNSNames[0] = "a.b.mesh.internal" },
		"address":            func(_ *body, c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} },
		"subject not its id": func(_ *body, c *x509.Certificate) { c.Subject.CommonName = commonName(p.signer.public()) },
		"organisation":       func(_ *body, c *x509.Certificate) { c.Subject.Organization = []string{"x"} },
		"issuer not its id":  func(b *body, _ *x509.Certificate) { b.issuer = "root" },
		"a century":          func(_ *body, c *x509.Certificate) { c.NotAfter = c.NotAfter.AddDate(100, 0, 0) },
		"ends before begin":  func(_ *body, c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Second) },
		"huge serial":        func(_ *body, c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 130) },
		"zero serial":        func(_ *body, c *x509.Certificate) { c.SerialNumber = big.NewInt(0) },
		"extra extension": func(_ *body, c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}})
		},
		"no extension": func(_ *body, c *x509.Certificate) { c.ExtraExtensions = nil },
		"extension trailed": func(_ *body, c *x509.Certificate) {
			c.ExtraExtensions[0].Value = append(bytes.Clone(c.ExtraExtensions[0].Value), 0)
		},
		"critical extension": func(_ *body, c *x509.Certificate) { c.ExtraExtensions[0].Critical = true },
		"low-order key": func(_ *body, c *x509.Certificate) {
			c.ExtraExtensions[0].Value = must(asn1.Marshal(nodeExtension{make([]byte, 32), pub.Probe[:], "member"}))(t)
		},
		"long key": func(_ *body, c *x509.Certificate) {
			c.ExtraExtensions[0].Value = must(asn1.Marshal(nodeExtension{make([]byte, 33), pub.Probe[:], "member"}))(t)
		},
		"roles unsorted": func(_ *body, c *x509.Certificate) {
			c.ExtraExtensions[0].Value = must(asn1.Marshal(nodeExtension{pub.WireGuard[:], pub.Probe[:], "member admin"}))(t)
		},
		"role unknown": func(_ *body, c *x509.Certificate) {
			c.ExtraExtensions[0].Value = must(asn1.Marshal(nodeExtension{pub.WireGuard[:], pub.Probe[:], "king member"}))(t)
		},
		"not a member": func(_ *body, c *x509.Certificate) {
			c.ExtraExtensions[0].Value = must(asn1.Marshal(nodeExtension{pub.WireGuard[:], pub.Probe[:], "admin"}))(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := fresh()
			template := must(b.node("a", pub.WireGuard, pub.Probe, AllRoles()))(t)
			change(&b, template)
			der := must(b.sign(template, p.admin.Sign))(t)
			_, err := p.trust.Verify(append(der, p.signer.der...), p.now)
			if (err == nil) != (name == "unchanged") {
				t.Fatalf("got %v", err)
			}
		})
	}
	t.Run("signer with long path", func(t *testing.T) {
		b := fresh()
		b.key, b.issuer = p.signer.public(), commonName(p.root.Public())
		template := b.signer()
		template.MaxPathLenZero, template.MaxPathLen = false, 3
		der := must(b.sign(template, p.root.Key))(t)
		chain := must(p.signer.Issue(pub, "a", nil, p.now))(t)
		if _, err := p.trust.Verify(append(chain[:len(chain)-len(p.signer.der)], der...), p.now); err == nil {
			t.Fatal("accepted")
		}
	})
	t.Run("node as signer", func(t *testing.T) {
		chain := must(p.signer.Issue(pub, "a", nil, p.now))(t)
		nodeDER := chain[:len(chain)-len(p.signer.der)]
		thief := &Signer{key: node.Sign, der: nodeDER, expires: p.now.AddDate(1, 0, 0)}
		victim := must(NewIdentity())(t)
		forged, err := thief.Issue(victim.Public(), "b", nil, p.now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.trust.Verify(forged, p.now); err == nil {
			t.Fatal("a node's certificate signed another")
		}
	})
}

// TestVerifyAgreesWithX509 lets the standard library judge what we accept.
func TestVerifyAgreesWithX509(t *testing.T) {
	p := newParty(t)
	chain := must(p.signer.Issue(must(NewIdentity())(t).Public(), "laptop", AllRoles(), p.now))(t)
	crts := must(x509.ParseCertificates(chain))(t)
	root := must(x509.ParseCertificate(p.root.Certificate))(t)
	roots, signers := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	signers.AddCert(crts[1])
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		_, err := crts[0].Verify(x509.VerifyOptions{
			DNSName: "laptop." + Domain, Roots: roots, Intermediates: signers,
			CurrentTime: p.now, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenSSLVerifies(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs the program openssl (package openssl)")
	}
	p := newParty(t)
	p.now = time.Now()
	p.root = must(NewRoot("home", p.now))(t)
	der := must(p.root.IssueSigner(p.admin.Public(), p.now))(t)
	p.signer = must(NewSigner(p.admin, der))(t)
	chain := must(p.signer.Issue(must(NewIdentity())(t).Public(), "laptop", longRoles(t), p.now))(t)
	dir := t.TempDir()
	write := func(name string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root, signer := write("root.pem", p.root.Certificate), write("signer.pem", der)
	node := write("node.pem", chain[:len(chain)-len(der)])
	for _, strict := range [][]string{nil, {"-x509_strict", "-purpose", "sslserver", "-verify_hostname", "laptop." + Domain}} {
		arguments := append([]string{"verify"}, strict...)
		out, err := exec.Command(openssl, append(arguments, "-CAfile", root, "-untrusted", signer, node)...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl verify %v: %v\n%s", strict, err, out)
		}
	}
	out, err := exec.Command(openssl, "x509", "-in", node, "-noout", "-text").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("DNS:laptop.mesh.internal")) {
		t.Fatalf("openssl x509: %v\n%s", err, out)
	}
	text := must(p.root.Marshal())(t)
	path := filepath.Join(dir, "backup.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(openssl, "pkey", "-in", path, "-noout", "-text").CombinedOutput(); err != nil {
		t.Fatalf("openssl pkey: %v\n%s", err, out)
	}
}

func TestRootRoundTrip(t *testing.T) {
	p := newParty(t)
	text := must(p.root.Marshal())(t)
	again := must(ParseRoot(text))(t)
	if !again.Key.Equal(p.root.Key) || again.Name != "home" || !bytes.Equal(again.Certificate, p.root.Certificate) {
		t.Fatalf("got %v", again)
	}
	_, key := pem.Decode(text)
	other, _ := pem.Decode(must(newParty(t).root.Marshal())(t))
	mixed := append(pem.EncodeToMemory(other), key...)
	for name, bad := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "certificate only": text[:len(text)-len(key)], "another's certificate": mixed,
	} {
		if _, err := ParseRoot(bad); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
}

func TestNewSignerWantsItsOwnCertificate(t *testing.T) {
	p := newParty(t)
	other := must(NewIdentity())(t)
	if _, err := NewSigner(other, p.signer.der); err == nil {
		t.Error("signer with another's certificate")
	}
	if _, err := NewSigner(other, nil); err == nil {
		t.Error("signer without certificate")
	}
	if key, err := p.trust.VerifySigner(p.signer.der, p.now); err != nil || nodeID(key) != p.signer.ID() {
		t.Errorf("got %v, %v", key, err)
	}
	if _, err := newParty(t).trust.VerifySigner(p.signer.der, p.now); !errors.Is(err, ErrUntrusted) {
		t.Errorf("another network's signer: %v", err)
	}
}

func TestSerialsGrow(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_123)
	a, b := must(newSerial(now))(t), must(newSerial(now.Add(time.Millisecond)))(t)
	if serialText(a) >= serialText(b) {
		t.Errorf("%s not before %s", serialText(a), serialText(b))
	}
	if !issuedAt(a).Equal(now) {
		t.Errorf("time of serial: %v", issuedAt(a))
	}
	if got := must(parseSerial(serialText(a)))(t); got != a {
		t.Errorf("got %x", got)
	}
}

// fixedParty is the same in every process: fuzz workers must agree on it.
func fixedParty(t testing.TB) (p *party, chain []byte) {
	t.Helper()
	key := func(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }
	p = &party{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	root := body{serial: [serialLength]byte{1}, valid: spanFrom(p.now, rootLifetime)}
	rootKey := ed25519.NewKeyFromSeed(key(1))
	root.key, root.issuer = rootKey.Public().(ed25519.PublicKey), commonName(rootKey.Public().(ed25519.PublicKey))
	p.root = &Root{"home", must(root.sign(root.root("home"), rootKey))(t), rootKey}
	p.trust = Trust{p.root.Public()}
	p.admin = &Identity{Sign: ed25519.NewKeyFromSeed(key(2)), WireGuard: wgtypes.Key(key(3)), Probe: wgtypes.Key(key(4))}
	pub := p.admin.Public()
	signer := body{[serialLength]byte{2}, spanFrom(p.now, signerLifetime), pub.Sign[:], root.issuer}
	p.signer = must(NewSigner(p.admin, must(signer.sign(signer.signer(), rootKey))(t)))(t)
	node := body{[serialLength]byte{3}, spanFrom(p.now, nodeLifetime), pub.Sign[:], commonName(p.signer.public())}
	template := must(node.node("laptop", pub.WireGuard, pub.Probe, AllRoles()))(t)
	return p, append(must(node.sign(template, p.admin.Sign))(t), p.signer.der...)
}

// TestCertificateBytes pins the form. Members compare bytes: when a new Go
// writes others, they would refuse each other, and this must be known first.
func TestCertificateBytes(t *testing.T) {
	p, chain := fixedParty(t)
	must(p.trust.Verify(chain, p.now))(t)
	must(parseRootCertificate(p.root.Certificate, p.root.Public()))(t)
	for name, tt := range map[string]struct {
		der  []byte
		want string
	}{
		"chain": {chain, "6618f04e667bd3a7899406101e6b56d0b6e6a1492551ffa0544b08c722cb5193"},
		"root":  {p.root.Certificate, "1df2a4b32891d1f94ad86697e02a7d11ab9034508b2a7fa6a5de0f04fdf18986"},
	} {
		if got := fmt.Sprintf("%x", sha256.Sum256(tt.der)); got != tt.want {
			t.Errorf("%s has hash %s", name, got)
		}
	}
}

func FuzzVerify(f *testing.F) {
	p, chain := fixedParty(f)
	f.Add(chain)
	f.Add(p.root.Certificate)
	f.Add(p.signer.der)
	f.Fuzz(func(t *testing.T, b []byte) {
		crt, err := p.trust.Verify(b, p.now)
		if err == nil && !bytes.Equal(crt.Raw, chain) {
			t.Fatalf("accepted something never issued: %x", b)
		}
		if _, err := p.trust.VerifySigner(b, p.now); err == nil && !bytes.Equal(b, p.signer.der) {
			t.Fatalf("accepted a signer never issued: %x", b)
		}
	})
}

// FuzzNode gets behind the signature: any body is signed by the right signer.
func FuzzNode(f *testing.F) {
	p, chain := fixedParty(f)
	crt := must(x509.ParseCertificates(chain))(f)[0]
	f.Add(crt.RawTBSCertificate)
	f.Fuzz(func(t *testing.T, tbs []byte) {
		der, err := asn1.Marshal(struct {
			TBS       asn1.RawValue
			Algorithm pkix.AlgorithmIdentifier
			Signature asn1.BitString
		}{
			asn1.RawValue{FullBytes: tbs},
			pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}},
			asn1.BitString{Bytes: ed25519.Sign(p.admin.Sign, tbs), BitLength: 512},
		})
		if err != nil {
			return
		}
		crt, err := p.trust.Verify(append(der, p.signer.der...), p.now)
		if err == nil && (ValidateName(crt.Name) != nil || crt.Check() != nil || crt.ID != nodeID(crt.Sign[:])) {
			t.Fatalf("accepted %+v", crt)
		}
	})
}
