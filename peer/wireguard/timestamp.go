package wireguard

import (
	"encoding/binary"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
)

// TAI64N (paper, 5.1 and 5.4.2): seconds with TAI's epoch, then nanoseconds,
// both big-endian. The low 24 bits of the nanoseconds are cleared, as in the
// reference implementations, so that they do not tell on the clock: a step is
// 16.8 ms. tai64n.Now reads the clock itself, hence this.
const (
	taiEpoch = uint64(0x400000000000000a)
	taiStep  = uint32(1 << 24)
)

func timestamp(now time.Time) (t tai64n.Timestamp) {
	binary.BigEndian.PutUint64(t[:], taiEpoch+uint64(now.Unix()))
	binary.BigEndian.PutUint32(t[8:], uint32(now.Nanosecond())&^(taiStep-1))
	return t
}

// stepAfter returns the next time stamp after t.
func stepAfter(t tai64n.Timestamp) tai64n.Timestamp {
	nano := binary.BigEndian.Uint32(t[8:]) + taiStep
	if nano >= uint32(time.Second) {
		nano = 0
		binary.BigEndian.PutUint64(t[:], binary.BigEndian.Uint64(t[:])+1)
	}
	binary.BigEndian.PutUint32(t[8:], nano)
	return t
}
