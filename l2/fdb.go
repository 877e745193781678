package l2

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// station is the key of the tables: a MAC address in a VLAN.
type station uint64

func stationOf(vlan uint16, mac MAC) station {
	return station(uint64(binary.BigEndian.Uint32(mac[0:4]))<<32 | uint64(binary.BigEndian.Uint16(mac[4:6]))<<16 | uint64(vlan))
}

func (s station) vlan() uint16 { return uint16(s) }

func (s station) mac() (mac MAC) {
	binary.BigEndian.PutUint32(mac[0:4], uint32(s>>32))
	binary.BigEndian.PutUint16(mac[4:6], uint16(s>>16))
	return mac
}

// origin is a place that frames come from: the device, a plug or a remote.
type origin struct {
	remote *RemotePort // nil: local
	plug   *plugPort   // nil: a remote, or the device
	*share
}

// share is how much of the tables a member may fill: all local origins have one.
type share struct {
	limit     atomic.Int32 // stations it may bring besides its own address
	stations  int          // it has brought; guarded by fdb.mu
	neighbors int          // entries of it in the neighbour table; guarded by neighbors.mu
}

const (
	maxStations = 32768       // of all origins together, about 5 MB
	sweepEvery  = time.Second // at most: a flood of addresses must not buy a walk of the table each
)

// fdb is the forwarding database: behind which origin a station was last heard.
// Addresses of members are not in it, they are in the view.
type fdb struct {
	age   time.Duration
	ghost func(MAC) bool // says what only looks like a station; must not call f
	local func(station)  // told of every station that comes to be, or ceases to be, on our side; must not call f

	contested atomic.Int64 // when a station of a remote was last heard here as well

	mu    sync.RWMutex
	hosts map[station]*entry
	probe MAC // of our own probes: nobody else's
	swept time.Duration
}

type entry struct {
	at    *origin
	seen  atomic.Int64 // time.Duration since the switch's start
	bound bool         // its member has announced it: it does not age
	seq   uint32       // of its binding

	contested atomic.Int64 // likewise: when it was last heard here, where it is not; 0: never
}

func newFDB(age time.Duration) *fdb {
	return &fdb{age: age, local: func(station) {}, ghost: func(MAC) bool { return false }, hosts: make(map[station]*entry), swept: -sweepEvery}
}

// lookup returns where a station is, or nil when it is not known.
func (f *fdb) lookup(k station, now time.Duration) *origin {
	f.mu.RLock()
	defer f.mu.RUnlock()
	e := f.hosts[k]
	if e == nil || f.expired(e, now) {
		return nil
	}
	return e.at
}

func (f *fdb) expired(e *entry, now time.Duration) bool {
	return !e.bound && now-time.Duration(e.seen.Load()) >= f.age
}

// learn notes that a frame of station k came from o. It returns passed, or why
// the frame must be dropped.
//
// A station does not move to another origin by a frame before it has aged: a member
// could take over any host otherwise. (Claims are what moves it: mobility.go.)
func (f *fdb) learn(k station, o *origin, now time.Duration) reason {
	f.mu.RLock()
	e := f.hosts[k]
	if e == nil || f.expired(e, now) {
		f.mu.RUnlock()
		return f.place(k, o, now)
	}
	defer f.mu.RUnlock()
	if e.at != o {
		f.contest(e, o, now)
		return sourceMoved
	}
	e.heard(now)
	return passed
}

// heard keeps the entry fresh. Goroutines may differ in what time it is.
func (e *entry) heard(now time.Duration) {
	if e.seen.Load() < int64(now) {
		e.seen.Store(int64(now))
	}
}

// place is learn for a station that is new or has aged.
func (f *fdb) place(k station, o *origin, now time.Duration) reason {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.hosts[k]
	switch {
	case e == nil:
	case f.expired(e, now):
		f.remove(k, e)
	case e.at != o: // another goroutine was quicker
		return sourceMoved
	default:
		e.heard(now)
		return passed
	}
	if k.mac() == f.probe {
		return sourceMAC
	}
	if f.ghost(k.mac()) {
		return passed // not learned
	}
	_, why := f.add(k, o, now)
	return why
}

// add makes an entry, or returns nil when there is no room for it. It needs mu.
func (f *fdb) add(k station, o *origin, now time.Duration) (*entry, reason) {
	limit := int(o.limit.Load())
	if o.stations >= limit || len(f.hosts) >= maxStations {
		f.sweep(now)
	}
	if o.stations >= limit {
		return nil, sourceLimit
	}
	if len(f.hosts) >= maxStations {
		return nil, passed // not learned
	}
	e := &entry{at: o}
	e.seen.Store(int64(now))
	f.hosts[k] = e
	o.stations++
	if o.remote == nil {
		f.local(k)
	}
	return e, passed
}

// remove needs mu.
func (f *fdb) remove(k station, e *entry) {
	delete(f.hosts, k)
	e.at.stations--
	if e.at.remote == nil {
		f.local(k)
	}
}

// sweep removes what has aged. It needs mu.
func (f *fdb) sweep(now time.Duration) {
	if now-f.swept < sweepEvery {
		return
	}
	f.swept = now
	for k, e := range f.hosts {
		if f.expired(e, now) {
			f.remove(k, e)
		}
	}
}

// forget removes every station for which gone holds.
func (f *fdb) forget(gone func(station, *origin) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, e := range f.hosts {
		if gone(k, e.at) {
			f.remove(k, e)
		}
	}
}

// each calls yield for every station that has not aged. yield must not call f.
func (f *fdb) each(now time.Duration, yield func(k station, at *origin, bound bool, age time.Duration)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for k, e := range f.hosts {
		if !f.expired(e, now) {
			yield(k, e.at, e.bound, now-time.Duration(e.seen.Load()))
		}
	}
}
