package lan

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// An announcement (PROTOCOL.md, section 12).
//
//	 0      1       2      4           12         28
//	+------+-------+------+-----------+----------+---- ... zeros to 1200
//	| 0xd4 | ver 1 | port | nonce (8) | tag (16) |
//
// It is as large as the open of a hello, which is what it may be answered with.
const (
	first   = 0xd4
	version = 1
	nonceAt = 4
	tagAt   = nonceAt + 8
	headEnd = tagAt + 16
	// Size is that of an announcement.
	Size = 1200
)

// When a Beacon speaks: thrice after a change, since the first multicast on a
// link that has just come up is often lost, and then rarely.
const (
	every  = 60 * time.Second
	jitter = 10 * time.Second
)

func burst() [3]time.Duration { return [3]time.Duration{0, time.Second, 3 * time.Second} }

// What a Beacon does with what it hears.
const (
	meetEvery  = 900 * time.Millisecond // one address, as long as it is not known
	meetBurst  = 16                     // hellos at once, and
	meetRate   = 4                      // a second on top
	heardBurst = 64                     // announcements whose tag is looked at, and
	heardRate  = 50                     // a second on top
	maxSources = 256                    // remembered
	maxOwn     = 8                      // of our own nonces that are remembered, to know our echo
)

// Beacon is one node's part in the discovery. It is pure; it is not safe for
// concurrent use.
type Beacon struct {
	key  [32]byte
	port uint16

	step int       // of the burst
	next time.Time // when to speak; zero: at once
	own  [][8]byte

	met          map[netip.AddrPort]time.Time // whom we were told to meet, and when
	meets, heard bucket
}

// NewBeacon is for a node of the network with this root key, that is reached at port.
func NewBeacon(root []byte, port uint16) (*Beacon, error) {
	key, err := hkdf.Key(sha256.New, root, nil, "meshd/1/lan", 32)
	if err != nil {
		return nil, err
	}
	return &Beacon{key: [32]byte(key), port: port, met: map[netip.AddrPort]time.Time{}}, nil
}

// Changed has the Beacon speak soon: there may be other links.
func (b *Beacon) Changed() { b.step, b.next = 0, time.Time{} }

// Poll returns what to say on every link now, nil for nothing, and when to ask again.
func (b *Beacon) Poll(now time.Time) (say []byte, next time.Time) {
	if now.Before(b.next) {
		return nil, b.next
	}
	times := burst()
	if b.step++; b.step < len(times) {
		b.next = now.Add(times[b.step] - times[b.step-1])
	} else {
		b.next = now.Add(every + mathrand.N(jitter))
	}
	return b.announcement(now), b.next
}

func (b *Beacon) announcement(now time.Time) []byte {
	msg := make([]byte, Size)
	msg[0], msg[1] = first, version
	binary.BigEndian.PutUint16(msg[2:], b.port)
	_, _ = rand.Read(msg[nonceAt:tagAt]) // never fails
	tag := b.tag(msg[2:tagAt], hour(now))
	copy(msg[tagAt:], tag[:])
	if b.own = append(b.own, [8]byte(msg[nonceAt:tagAt])); len(b.own) > maxOwn {
		b.own = slices.Delete(b.own, 0, 1)
	}
	return msg
}

func hour(t time.Time) uint32 { return uint32(t.Unix() / 3600) }

// tag covers port and nonce, and the hour, so that what was recorded is soon stale.
func (b *Beacon) tag(covered []byte, hour uint32) [16]byte {
	mac := hmac.New(sha256.New, b.key[:])
	mac.Write(covered)
	mac.Write(binary.BigEndian.AppendUint32(nil, hour))
	return [16]byte(mac.Sum(nil))
}

// Heard takes what came in by a link. With true a member may be at the address:
// meet it, with a single open, unless it is known to be there.
func (b *Beacon) Heard(now time.Time, from netip.AddrPort, msg []byte) (at netip.AddrPort, meet bool) {
	if len(msg) != Size || msg[0] != first || msg[1] != version || !b.heard.take(now, heardRate, heardBurst) {
		return at, false
	}
	port := binary.BigEndian.Uint16(msg[2:])
	if port == 0 || slices.Contains(b.own, [8]byte(msg[nonceAt:tagAt])) || !b.genuine(now, msg) {
		return at, false
	}
	at = netip.AddrPortFrom(from.Addr().Unmap(), port)
	if last, known := b.met[at]; known && now.Sub(last) < meetEvery && !last.After(now) {
		return at, false
	}
	if !b.meets.take(now, meetRate, meetBurst) {
		return at, false
	}
	if len(b.met) >= maxSources {
		clear(b.met) // costs a hello more for each
	}
	b.met[at] = now
	return at, true
}

// genuine reports that the tag is of this network and of about now: clocks may
// be an hour off.
func (b *Beacon) genuine(now time.Time, msg []byte) bool {
	for delta := -1; delta <= 1; delta++ {
		tag := b.tag(msg[2:tagAt], hour(now)+uint32(delta))
		if hmac.Equal(tag[:], msg[tagAt:headEnd]) {
			return true
		}
	}
	return false
}

// bucket is a token bucket. The zero value is full.
type bucket struct {
	used float64
	at   time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	if d := now.Sub(b.at); d > 0 {
		b.used = max(0, b.used-d.Seconds()*rate)
		b.at = now
	}
	if b.used+1 > burst {
		return false
	}
	b.used++
	return true
}
