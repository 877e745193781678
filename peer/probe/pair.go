package probe

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"

	"meshd/keys"
)

// ErrSelf says that a pair was to be made of a node and itself.
var ErrSelf = errors.New("remote node is this node")

// salt separates these keys from all others that the same agreement could give.
const salt = "meshd/1/probe"

// Pair is the keys that two nodes share for probes. It is immutable and may be
// used by several goroutines.
type Pair struct {
	own, remote [32]byte // Ed25519 keys
	tagKey      [32]byte
	seal, open  cipher.AEAD
}

// NewPair agrees on keys with remote. It refuses a probe key of low order and
// the node's own key.
func NewPair(own *keys.Identity, remote keys.Public) (*Pair, error) {
	public := own.Public()
	if public.Sign == remote.Sign {
		return nil, fmt.Errorf("agree on probe keys: %w", ErrSelf)
	}
	secret, err := curve25519.X25519(own.Probe[:], remote.Probe[:]) // an all-zero secret is an error
	if err != nil {
		return nil, fmt.Errorf("agree on probe keys: %w", err)
	}
	lower, higher := public.Sign, remote.Sign
	swapped := bytes.Compare(lower[:], higher[:]) > 0
	if swapped {
		lower, higher = higher, lower
	}
	info := string(lower[:]) + string(higher[:])
	key, err := hkdf.Key(sha256.New, secret, []byte(salt), info, 3*32)
	if err != nil {
		return nil, fmt.Errorf("agree on probe keys: %w", err)
	}
	fromLower, err := chacha20poly1305.NewX(key[32:64])
	if err != nil {
		return nil, fmt.Errorf("agree on probe keys: %w", err)
	}
	fromHigher, err := chacha20poly1305.NewX(key[64:96])
	if err != nil {
		return nil, fmt.Errorf("agree on probe keys: %w", err)
	}
	p := &Pair{own: public.Sign, remote: remote.Sign, tagKey: [32]byte(key), seal: fromLower, open: fromHigher}
	if swapped {
		p.seal, p.open = p.open, p.seal
	}
	return p, nil
}

// Hour is the hour of a time as tags count it.
func Hour(t time.Time) uint32 { return uint32(t.Unix() / 3600) }

// OutTag is the tag of what this node sends in an hour.
func (p *Pair) OutTag(hour uint32) [8]byte { return p.tag(p.own, hour) }

// InTag is the tag of what the remote sends in an hour by its clock.
func (p *Pair) InTag(hour uint32) [8]byte { return p.tag(p.remote, hour) }

func (p *Pair) tag(sender [32]byte, hour uint32) [8]byte {
	mac := hmac.New(sha256.New, p.tagKey[:])
	mac.Write(sender[:])
	mac.Write(binary.BigEndian.AppendUint32(nil, hour))
	var sum [sha256.Size]byte
	return [8]byte(mac.Sum(sum[:0]))
}

// Append appends the datagram that carries m to dst, padded to size bytes in
// all; a size below MinSize means no padding. Hour is this node's.
func (p *Pair) Append(dst []byte, m Message, hour uint32, size int) []byte {
	start := len(dst)
	tag := p.OutTag(hour)
	dst = append(dst, First, version, 0, 0)
	dst = append(dst, tag[:]...)
	var nonce [chacha20poly1305.NonceSizeX]byte
	_, _ = rand.Read(nonce[:]) // never fails
	dst = append(dst, nonce[:]...)

	var buffer [messageSz]byte
	plain := appendMessage(buffer[:0], m)
	if size > MinSize {
		plain = append(plain, make([]byte, size-MinSize)...)
	}
	return p.seal.Seal(dst, nonce[:], plain, dst[start:start+nonceAt])
}

// Open returns the message in a datagram that the remote sealed. It does not
// look at the tag's hour: a Table knows no others than those that may come.
func (p *Pair) Open(datagram []byte) (Message, error) {
	if !wellFormed(datagram) {
		return Message{}, ErrFormat
	}
	plain, err := p.open.Open(nil, datagram[nonceAt:sealedAt], datagram[sealedAt:], datagram[:nonceAt])
	if err != nil {
		return Message{}, ErrOpen
	}
	return parseMessage(plain)
}
