package keys

import (
	"crypto/ed25519"
	"encoding/binary"
	"strings"

	"github.com/tyler-smith/go-bip39/wordlists"
)

// WordCount is how many words an admin compares: 66 bits.
const WordCount = 6

// Words is what joiner and signer show. They bind the root key, the joiner's
// keys and a nonce of each side. The joiner commits to its nonce (Commitment)
// before it sees the signer's, and shows it after: so neither side, nor one
// between them, can search for keys or nonces that give chosen words.
func Words(root ed25519.PublicKey, joiner Public, nonceJoiner, nonceSigner [32]byte) []string {
	sum := digest("meshd/1/words", digestOf(root), joiner.Bytes(), nonceJoiner[:], nonceSigner[:])
	bits, more := binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint16(sum[8:10])
	words := make([]string, WordCount)
	for i := range WordCount - 1 {
		words[i] = wordlists.English[bits>>53]
		bits <<= 11
	}
	// 55 of 64 bits are used: the last 9, and 2 more.
	words[WordCount-1] = wordlists.English[bits>>53|uint64(more>>14)]
	return words
}

// Commitment binds a joiner to its nonce without showing it.
func Commitment(nonce [32]byte, joiner Public) [32]byte {
	return digest("meshd/1/commitment", nonce[:], joiner.Bytes())
}

// ParseWords reads words as people type them: any case, separated by anything
// but letters. It returns nil when they are not six words of the list.
func ParseWords(text string) []string {
	words := strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return c < 'a' || c > 'z' })
	if len(words) != WordCount {
		return nil
	}
	for _, word := range words {
		if !isWord(word) {
			return nil
		}
	}
	return words
}

func isWord(word string) bool {
	for _, known := range wordlists.English {
		if word == known {
			return true
		}
	}
	return false
}

// digestOf gives a key of any length a fixed one.
func digestOf(key []byte) []byte {
	sum := digest("meshd/1/key", key)
	return sum[:]
}
