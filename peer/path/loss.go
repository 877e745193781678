package path

import "time"

// Loss of data, end to end. A pong says how many transport messages the remote has
// received over the path that it answers on; a ping remembers how many had been
// sent on it. Between two answered pings both have grown, and what is missing was
// lost: whoever carries the packets can drop data and let probes pass, and will be
// found out all the same.

const (
	lossWindow = 400 * time.Millisecond // the shortest that is judged
	lossEnough = 16                     // messages in it
	lossFew    = 3                      // the same when none of them arrived
	lossHigh   = 0.2                    // of a relayed path: more is not the fault of whoever sends too much
	lossTotal  = 0.9                    // of a direct one, which is often overrun
	lossTwice  = 2                      // windows in a row that condemn a path
	badFor     = 30 * time.Second       // for which it is then not gone back to
)

// dataLoss is what is known of the fate of data on one path.
type dataLoss struct {
	out      uint32 // messages sent so far
	sent     uint32 // at the ping that the window begins with
	received uint32 // likewise, at the remote
	began    time.Time
	rate     float64 // of the last window
	high     int     // windows in a row with too much
	badUntil time.Time
}

// pong compares what had been sent before a ping with what had been received when
// it was answered.
func (l *dataLoss) pong(sentBefore, received uint32, most float64, at, now time.Time) {
	sent, got := sentBefore-l.sent, received-l.received
	if l.began.IsZero() || int32(sent) < 0 || int32(got) < 0 {
		l.begin(sentBefore, received, at)
		return
	}
	if at.Sub(l.began) < lossWindow || sent < lossEnough && (sent < lossFew || got > 0) {
		return
	}
	l.rate = max(0, 1-float64(got)/float64(sent))
	l.begin(sentBefore, received, at)
	if l.rate < most {
		l.high = 0
		return
	}
	if l.high++; l.high >= lossTwice {
		l.badUntil = now.Add(badFor)
	}
}

func (l *dataLoss) begin(sent, received uint32, at time.Time) {
	l.sent, l.received, l.began = sent, received, at
}

// restart forgets the window: the path was not in use, or is another now.
func (l *dataLoss) restart() { l.began, l.high = time.Time{}, 0 }

// bad says that the path loses too much to be used while there is another.
func (c *candidate) bad(now time.Time) bool { return now.Before(c.loss.badUntil) }

// mostLoss is how much of the data a path may lose.
func (c *candidate) mostLoss() float64 {
	if c.held {
		return lossHigh
	}
	return lossTotal
}
