package path

import "time"

const (
	// baseMTU passes everywhere: no IPv6 link has less (RFC 8200).
	baseMTU = 1280
	// relayedLess is what the headers of three relays take of it (PROTOCOL.md, section 10).
	relayedLess = 3 * 8

	mtuTries  = 3                      // padded pings that must be lost for a verdict
	mtuRetry  = 300 * time.Millisecond // between them
	mtuVerify = 2 * time.Second        // between tests of the size in use, while data is sent
	mtuAgain  = time.Minute            // until a search for more after a black hole
	mtuRaise  = 10 * time.Minute       // the same otherwise (RFC 8899, PMTU_RAISE_TIMER)
)

// sizes are tried, the largest first: Ethernet, PPPoE, a tunnel below us, two of
// them. After them there is baseMTU.
var sizes = [...]int{1500, 1492, 1476, 1420, 1360}

// rung is a size to try. Through relays the same links take less: what passes over
// three of them and IPv6 passes whatever address a relay takes to the next, and
// those change.
func (m *mtuSearch) rung(i int) int {
	if i < len(sizes) {
		return sizes[i] - m.less
	}
	return m.base()
}

// mtuSearch finds the largest packet that passes on a path, and notices when it
// no longer does (RFC 8899, with few sizes). The zero value begins with the largest.
type mtuSearch struct {
	less      int       // headers of relays
	known     int       // passes; 0: base
	at        int       // the rung to try next
	fails     int       // padded pings of one size lost in a row
	firstFail time.Time // when the first of them was sent
	small     time.Time // when the last small ping that was answered was sent
	sentAt    time.Time // when the last padded ping was sent
	raise     time.Time // when to begin again with the largest; zero: never
}

func (m *mtuSearch) size() int { return max(m.known, m.base()) }

// base passes always.
func (m *mtuSearch) base() int { return baseMTU - m.less }

// done says that there is nothing larger to try for now.
func (m *mtuSearch) done() bool { return m.rung(m.at) <= m.size() }

// test is the size to test: the next larger one, or that in use.
func (m *mtuSearch) test() int { return max(m.rung(m.at), m.size()) }

// due is when a padded ping is to be sent; ok is false when none is. Sending says
// that the size in use matters, suspect that it may be what is wrong, and pause how long
// to wait between tests at least.
func (m *mtuSearch) due(now time.Time, sending, suspect bool, pause time.Duration) (at time.Time, ok bool) {
	if !m.raise.IsZero() && !now.Before(m.raise) {
		m.at, m.fails, m.raise = 0, 0, time.Time{}
	}
	switch {
	case m.fails >= mtuTries && m.wantsSmall(): // more of them say nothing more
		return at, false
	case !m.done(), m.fails > 0, suspect && m.known > 0:
		return m.sentAt.Add(max(mtuRetry, pause)), true
	case m.known > 0 && sending:
		return m.sentAt.Add(mtuVerify), true
	}
	return m.raise, !m.raise.IsZero()
}

// wantsSmall says that a verdict waits for a small ping to be answered.
func (m *mtuSearch) wantsSmall() bool { return m.fails > 0 && m.small.Before(m.firstFail) }

// passed says that a packet of a size has come through.
func (m *mtuSearch) passed(size int, now time.Time) {
	if size > m.known {
		m.known, m.fails = size, 0
		m.raiseAt(now.Add(mtuRaise))
	} else if size == m.test() {
		m.fails = 0
	}
}

// smallPassed says that a small ping sent at a time was answered.
func (m *mtuSearch) smallPassed(at time.Time) { m.small = later(m.small, at) }

// failed says that a padded ping was lost. Only when small ones come through is
// that the fault of its size.
func (m *mtuSearch) failed(size int, at, now time.Time) {
	if size != m.test() {
		return
	}
	if m.fails == 0 {
		m.firstFail = at
	}
	if m.fails++; m.fails < mtuTries || m.small.Before(m.firstFail) {
		return
	}
	m.fails = 0
	again := mtuRaise
	if m.done() { // the size in use: a black hole
		m.known, m.at, again = 0, 0, mtuAgain
		for m.rung(m.at) >= size && m.rung(m.at) > m.base() {
			m.at++
		}
	} else {
		m.at++
	}
	m.raiseAt(now.Add(again))
}

// raiseAt sets when to begin again with the largest, if that is not in use.
func (m *mtuSearch) raiseAt(at time.Time) {
	m.raise = at
	if m.size() == m.rung(0) {
		m.raise = time.Time{}
	}
}
