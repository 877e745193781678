package keys

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"meshd/keys/canon"
)

func TestRevocation(t *testing.T) {
	p := newParty(t)
	node := must(NewIdentity())(t).Public()
	crt := func(at time.Time) *Certificate {
		chain := must(p.signer.Issue(node, "laptop", nil, at))(t)
		return must(p.trust.Verify(chain, at))(t)
	}
	first, second := crt(p.now), crt(p.now.Add(time.Minute))
	network := p.trust.NetworkID()
	bound := must(p.signer.Revoke(network, Revocation{Key: node.Sign, Serial: first.Serial, Issued: p.now}))(t)
	all := must(p.root.Revoke(Revocation{Key: node.Sign, Issued: p.now}))(t)
	cascade := must(p.root.Revoke(Revocation{Key: p.admin.Public().Sign, Cascade: p.now.Add(30 * time.Second), Issued: p.now}))(t)
	everything := must(p.root.Revoke(Revocation{Key: p.admin.Public().Sign, Cascade: time.Unix(0, 0), Issued: p.now}))(t)
	for _, tt := range []struct {
		name          string
		r             *Revocation
		first, second bool
		signer        NodeID
	}{
		{"up to a serial", bound, true, false, p.signer.ID()},
		{"for ever", all, true, true, NodeID{}},
		{"what a signer signed later", cascade, false, true, NodeID{}},
		{"all that a signer signed", everything, true, true, NodeID{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := must(p.trust.VerifyRevocation(tt.r.Raw))(t)
			if got.Key != tt.r.Key || got.Serial != tt.r.Serial || !got.Cascade.Equal(tt.r.Cascade) ||
				!got.Issued.Equal(p.now) || got.Signer != tt.signer || got.Network != network || !bytes.Equal(got.Raw, tt.r.Raw) {
				t.Fatalf("got %+v", got)
			}
			if got.Covers(first) != tt.first || got.Covers(second) != tt.second {
				t.Errorf("covers %v, %v", got.Covers(first), got.Covers(second))
			}
			for i := range len(tt.r.Raw) * 8 {
				bad := bytes.Clone(tt.r.Raw)
				bad[i/8] ^= 1 << (i % 8)
				if _, err := p.trust.VerifyRevocation(bad); err == nil {
					t.Fatalf("bit %d flipped: accepted", i)
				}
			}
			if _, err := newParty(t).trust.VerifyRevocation(tt.r.Raw); !errors.Is(err, ErrUntrusted) {
				t.Errorf("another network: %v", err)
			}
		})
	}
	other := must(NewIdentity())(t).Public()
	stranger := must(p.trust.Verify(must(p.signer.Issue(other, "x", nil, p.now))(t), p.now))(t)
	if bound.Covers(stranger) || all.Covers(stranger) {
		t.Error("covers another node")
	}
}

func TestRevocationRefuses(t *testing.T) {
	p, rogue := newParty(t), newParty(t)
	node := must(NewIdentity())(t)
	network := p.trust.NetworkID()
	if _, err := p.signer.Revoke(network, Revocation{Issued: p.now}); !errors.Is(err, ErrWeakKey) {
		t.Errorf("of nobody: %v", err)
	}
	if _, err := p.signer.Revoke(network, Revocation{Key: node.Public().Sign, Serial: "7", Issued: p.now}); err == nil {
		t.Error("with half a serial")
	}
	foreign := must(rogue.signer.Revoke(network, Revocation{Key: node.Public().Sign, Issued: p.now}))(t)
	late := must(p.signer.Revoke(network, Revocation{Key: node.Public().Sign, Issued: p.now.Add(2 * signerLifetime)}))(t)
	chain := must(p.signer.Issue(node.Public(), "laptop", nil, p.now))(t)
	byNode := must(sealRevocation(network, Revocation{Key: p.admin.Public().Sign, Issued: p.now}, node.Sign, chain[:len(chain)-len(p.signer.der)]))(t)
	for name, raw := range map[string][]byte{
		"another network's signer": foreign.Raw, "after the signer's end": late.Raw, "by a node": byNode.Raw,
		"empty": nil, "too long": make([]byte, maxRevocation+1),
	} {
		if _, err := p.trust.VerifyRevocation(raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzVerifyRevocation(f *testing.F) {
	p, _ := fixedParty(f)
	node := p.admin.Public().Sign
	for _, r := range []*Revocation{
		must(p.signer.Revoke(p.trust.NetworkID(), Revocation{Key: node, Issued: p.now}))(f),
		must(p.root.Revoke(Revocation{Key: node, Cascade: p.now, Serial: "0123456789abcdef01234567", Issued: p.now}))(f),
	} {
		f.Add(r.Raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := p.trust.VerifyRevocation(b); err == nil && !bytes.Equal(r.Raw, b) {
			t.Fatal("another encoding")
		}
		var w revocationWire
		if canon.Unmarshal(b, &w) == nil { // behind the signature
			_, _ = w.revocation(NodeID{}, b)
		}
	})
}
