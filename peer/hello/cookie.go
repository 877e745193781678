package hello

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/crypto/blake2s"
)

const cookieRotation = 2 * time.Minute

// cookies makes and checks cookies, which prove that a source receives what is
// sent to its address. One is valid for two to four minutes.
type cookies struct {
	current, previous [keyLen]byte
	since             time.Time
}

func (c *cookies) rotate(now time.Time) {
	age := now.Sub(c.since)
	if !c.since.IsZero() && age >= 0 && age < cookieRotation {
		return
	}
	c.previous = c.current
	if c.since.IsZero() || age < 0 || age >= 2*cookieRotation {
		_, _ = rand.Read(c.previous[:]) // too old to be honoured
	}
	_, _ = rand.Read(c.current[:])
	c.since = now
}

func (c *cookies) make(src netip.AddrPort, connection [8]byte, now time.Time) [cookieLen]byte {
	c.rotate(now)
	return cookieFor(&c.current, src, connection)
}

func (c *cookies) valid(cookie [cookieLen]byte, src netip.AddrPort, connection [8]byte, now time.Time) bool {
	c.rotate(now)
	current := cookieFor(&c.current, src, connection)
	if hmac.Equal(cookie[:], current[:]) {
		return true
	}
	previous := cookieFor(&c.previous, src, connection)
	return hmac.Equal(cookie[:], previous[:])
}

func cookieFor(key *[keyLen]byte, src netip.AddrPort, connection [8]byte) [cookieLen]byte {
	mac, err := blake2s.New128(key[:])
	if err != nil {
		panic("hello: " + err.Error()) // the key has the right length
	}
	address := src.Addr().As16()
	mac.Write(address[:])
	mac.Write(binary.BigEndian.AppendUint16(nil, src.Port()))
	mac.Write(connection[:])
	var sum [cookieLen]byte
	return [cookieLen]byte(mac.Sum(sum[:0]))
}
