package wireguard

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// The last 32 bytes of messages of type 1 and 2 (paper, 5.4.4):
//
//	| ... msgα ... | mac1 (16) | mac2 (16) |
//
// mac1 is keyed with the receiver's public key, mac2 with a cookie that the
// receiver has given out under load. CookieChecker and CookieGenerator of
// wireguard-go do the same but read the clock themselves and hold one cookie
// for all paths; the tests hold this file to them.

const macSize = blake2s.Size128

type (
	macKey = [blake2s.Size]byte
	mac    = [macSize]byte
)

// labelledKey is HASH(label || public), paper 5.4.4 and 5.4.7.
func labelledKey(label string, public wgtypes.Key) macKey {
	return blake2s.Sum256(append([]byte(label), public[:]...))
}

// mac128 is the keyed hash MAC(key, data) of the paper, 5.4.
func mac128(key, data []byte) (sum mac) {
	h, err := blake2s.New128(key)
	if err != nil {
		panic(err) // only for keys of more than 32 bytes
	}
	h.Write(data)
	h.Sum(sum[:0])
	return sum
}

// targetKeys are what the MACs of messages to one node are made with.
type targetKeys struct {
	mac1   macKey
	cookie macKey // seals cookie replies
}

func newTargetKeys(public wgtypes.Key) targetKeys {
	return targetKeys{labelledKey("mac1----", public), labelledKey("cookie--", public)}
}

// mac1Of computes mac1 of a whole message.
func (k *targetKeys) mac1Of(msg []byte) mac {
	return mac128(k.mac1[:], msg[:len(msg)-2*macSize])
}

// mac1In and mac2In are the fields of a whole message.
func mac1In(msg []byte) []byte { return msg[len(msg)-2*macSize : len(msg)-macSize] }
func mac2In(msg []byte) []byte { return msg[len(msg)-macSize:] }

// cookieSecret is what a node derives the cookies from that it gives out. It
// changes every two minutes (paper, 5.3).
type cookieSecret struct {
	key [blake2s.Size]byte
	set time.Time
}

// refresh draws a new secret if it is time.
func (c *cookieSecret) refresh(now time.Time) {
	if age := now.Sub(c.set); c.set.IsZero() || age < 0 || age >= CookieLifetime {
		rand.Read(c.key[:]) // never fails
		c.set = now
	}
}

// cookie is what the sender at src has to prove to know.
func (c *cookieSecret) cookie(src []byte) mac { return mac128(c.key[:], src) }

// checkMAC2 reports whether mac2 of msg was made with cookie.
func checkMAC2(msg []byte, cookie mac) bool {
	want := mac128(cookie[:], msg[:len(msg)-macSize])
	return subtle.ConstantTimeCompare(want[:], mac2In(msg)) == 1
}

// cookieReply is the message of type 3 that answers msg (paper, 5.4.7).
//
//	| 3 0 0 0 | receiver (4) | nonce (24) | XChaCha20-Poly1305(cookie), mac1 of msg as AD (32) |
func (k *targetKeys) cookieReply(msg []byte, cookie mac) []byte {
	reply := make([]byte, 8+chacha20poly1305.NonceSizeX, CookieSize)
	reply[0] = byte(TypeCookie)
	copy(reply[4:8], msg[4:8]) // the sender of msg is our receiver
	nonce := reply[8:]
	rand.Read(nonce)
	aead, err := chacha20poly1305.NewX(k.cookie[:])
	if err != nil {
		panic(err) // only for a wrong key size
	}
	return aead.Seal(reply, nonce, cookie[:], mac1In(msg))
}

// maxJars bounds the paths whose cookies a Session keeps.
const maxJars = 16

// jar is the cookie state of one path.
type jar struct {
	lastMAC1 mac
	used     time.Time // when lastMAC1 was set
	cookie   mac
	got      time.Time // when cookie came; zero: none
}

// stamp sets both MACs of msg (paper, 5.4.4): mac2 stays zero without a cookie
// that is younger than CookieLifetime.
func (j *jar) stamp(k *targetKeys, msg []byte, now time.Time) {
	j.lastMAC1, j.used = k.mac1Of(msg), now
	copy(mac1In(msg), j.lastMAC1[:])
	var mac2 mac
	if age := now.Sub(j.got); !j.got.IsZero() && age >= 0 && age < CookieLifetime {
		mac2 = mac128(j.cookie[:], msg[:len(msg)-macSize])
	}
	copy(mac2In(msg), mac2[:])
}

// take opens a cookie reply. It must answer the last message stamped.
func (j *jar) take(k *targetKeys, reply []byte, now time.Time) bool {
	aead, err := chacha20poly1305.NewX(k.cookie[:])
	if err != nil {
		panic(err) // only for a wrong key size
	}
	var cookie mac
	nonce, sealed := reply[8:8+chacha20poly1305.NonceSizeX], reply[8+chacha20poly1305.NonceSizeX:]
	if _, err := aead.Open(cookie[:0], nonce, sealed, j.lastMAC1[:]); err != nil {
		return false
	}
	j.cookie, j.got = cookie, now
	return true
}

// jars are the cookie states of a Session, by path.
type jars map[any]*jar

// at returns the jar of path, making one if need be, at the cost of the one
// that was not used for longest.
func (js jars) at(path any) *jar {
	if j := js[path]; j != nil {
		return j
	}
	if len(js) >= maxJars {
		paths := slices.Collect(maps.Keys(js))
		delete(js, slices.MinFunc(paths, func(a, b any) int { return js[a].used.Compare(js[b].used) }))
	}
	js[path] = &jar{}
	return js[path]
}

// senderOf reads the sender index of a message of type 1 or 2.
func senderOf(msg []byte) uint32 { return binary.LittleEndian.Uint32(msg[4:]) }
