package keys

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tyler-smith/go-bip39/wordlists"
)

func TestWordsChangeWithEverything(t *testing.T) {
	p := newParty(t)
	joiner := must(NewIdentity())(t).Public()
	root := p.root.Public()
	a, b := [32]byte{1}, [32]byte{2}
	words := Words(root, joiner, a, b)
	if len(words) != WordCount || !slices.Equal(words, Words(slices.Clone(root), joiner, a, b)) {
		t.Fatalf("got %v", words)
	}
	seen := map[string]string{strings.Join(words, " "): "unchanged"}
	try := func(name string, w []string) {
		if other, ok := seen[strings.Join(w, " ")]; ok {
			t.Errorf("%s: same words as %s", name, other)
		}
		seen[strings.Join(w, " ")] = name
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		bit := r.IntN(256)
		flip := func(k [32]byte) [32]byte { k[bit/8] ^= 1 << (bit % 8); return k }
		for name, w := range map[string][]string{
			"root":         Words(slices.Clone(func() []byte { k := flip([32]byte(root)); return k[:] }()), joiner, a, b),
			"sign":         Words(root, Public{flip(joiner.Sign), joiner.WireGuard, joiner.Probe}, a, b),
			"wireguard":    Words(root, Public{joiner.Sign, flip(joiner.WireGuard), joiner.Probe}, a, b),
			"probe":        Words(root, Public{joiner.Sign, joiner.WireGuard, flip(joiner.Probe)}, a, b),
			"joiner nonce": Words(root, joiner, flip(a), b),
			"signer nonce": Words(root, joiner, a, flip(b)),
		} {
			key := fmt.Sprintf("%s bit %d", name, bit)
			if other := seen[strings.Join(w, " ")]; other != key {
				try(key, w)
			}
		}
	}
	try("nonces exchanged", Words(root, joiner, b, a))
}

// TestWordsUseAllBits counts how the words spread over the list, last word included.
func TestWordsUseAllBits(t *testing.T) {
	p := newParty(t)
	joiner := p.admin.Public()
	var seen [WordCount]map[string]bool
	for i := range seen {
		seen[i] = map[string]bool{}
	}
	const rounds = 8192
	for n := range rounds {
		for i, word := range Words(p.root.Public(), joiner, [32]byte{byte(n), byte(n >> 8)}, [32]byte{}) {
			seen[i][word] = true
		}
	}
	for i, words := range seen {
		// 2048 * (1 - e^-4) = 2010 are expected.
		if len(words) < 1970 {
			t.Errorf("place %d: %d of %d words in %d rounds", i, len(words), len(wordlists.English), rounds)
		}
	}
}

func TestCommitmentBinds(t *testing.T) {
	joiner, other := must(NewIdentity())(t).Public(), must(NewIdentity())(t).Public()
	c := Commitment([32]byte{1}, joiner)
	if c != Commitment([32]byte{1}, joiner) || c == Commitment([32]byte{2}, joiner) || c == Commitment([32]byte{1}, other) {
		t.Error("commitment does not bind nonce and joiner")
	}
}

func TestParseWords(t *testing.T) {
	want := []string{"abandon", "zoo", "legal", "winner", "thank", "year"}
	for text, ok := range map[string]bool{
		"abandon zoo legal winner thank year":      true,
		" Abandon-zoo, legal\nWINNER.thank year ":  true,
		"abandon zoo legal winner thank":           false,
		"abandon zoo legal winner thank year year": false,
		"abandon zoo legal winner thank meshd":     false,
		"abandonzoo legal winner thank year":       false,
		"":                                         false,
	} {
		if got := ParseWords(text); slices.Equal(got, want) != ok || !ok && got != nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func FuzzParseWords(f *testing.F) {
	f.Add("abandon zoo legal winner thank year")
	f.Fuzz(func(t *testing.T, s string) {
		if w := ParseWords(s); w != nil && !slices.Equal(ParseWords(strings.Join(w, " ")), w) {
			t.Fatalf("%q gives %v", s, w)
		}
	})
}
