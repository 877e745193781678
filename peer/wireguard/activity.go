package wireguard

import (
	"sync/atomic"
	"time"
)

// activity is what the data path tells the timers. Times are nanoseconds after
// epoch, never zero; zero means none. Nothing here needs a timer at the time of
// the packet: Tick comes every KeepaliveTimeout while there is a key, which is
// no later than the earliest deadline that a packet since the last Tick can
// have set.
type activity struct {
	epoch      time.Time
	persistent bool // last is wanted

	unanswered atomic.Int64 // when the first data was sent that nothing has come back for
	owed       atomic.Int64 // when the first data came that nothing has been sent back for
	last       atomic.Int64 // when anything was last sent or received
	handshake  atomic.Int64 // unix nanoseconds of the last completed handshake

	tx atomic.Uint64
	_  [64]byte // for the sending and the receiving core
	rx atomic.Uint64
}

// nanos is now as the atomics hold it: the epoch is 1.
func (a *activity) nanos(now time.Time) int64 { return max(int64(now.Sub(a.epoch)), 0) + 1 }

// time is the inverse of nanos.
func (a *activity) time(nanos int64) time.Time { return a.epoch.Add(time.Duration(nanos - 1)) }

// sent notes that something authenticated was sent, a handshake too.
func (a *activity) sent(now time.Time, data bool) int64 {
	at := a.nanos(now)
	if data && a.unanswered.Load() == 0 {
		a.unanswered.CompareAndSwap(0, at)
	}
	if a.owed.Load() != 0 {
		a.owed.Store(0)
	}
	a.touch(at)
	return at
}

// received notes that something authenticated was received, a handshake too.
func (a *activity) received(now time.Time, data bool) int64 {
	at := a.nanos(now)
	if data && a.owed.Load() == 0 {
		a.owed.CompareAndSwap(0, at)
	}
	if a.unanswered.Load() != 0 {
		a.unanswered.Store(0)
	}
	a.touch(at)
	return at
}

func (a *activity) touch(at int64) {
	if a.persistent {
		a.last.Store(at)
	}
}
