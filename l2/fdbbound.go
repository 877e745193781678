package l2

import "time"

// What announcements do to the forwarding database.

// sighting is where a station is and how it is known.
type sighting struct {
	at    *origin // nil: it is not known
	bound bool
	seq   uint32
	seen  time.Duration
}

// find is lookup with all that is known.
func (f *fdb) find(k station, now time.Duration) sighting {
	f.mu.RLock()
	defer f.mu.RUnlock()
	e := f.hosts[k]
	if e == nil || f.expired(e, now) {
		return sighting{}
	}
	return sighting{at: e.at, bound: e.bound, seq: e.seq, seen: time.Duration(e.seen.Load())}
}

// bind has a station where its member says that it is. What is on our side stays
// there: it reports false, as it does when o has brought as many as it may.
func (f *fdb) bind(k station, o *origin, seq uint32, now time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.hosts[k]
	if e != nil && e.at != o {
		if e.at.remote == nil && !f.expired(e, now) || k.mac() == f.probe {
			return false
		}
		f.remove(k, e)
		e = nil
	}
	if e == nil {
		if e, _ = f.add(k, o, now); e == nil {
			return false
		}
	}
	e.bound, e.seq = true, seq
	return true
}

// take puts a station on our side, whoever had it.
func (f *fdb) take(k station, o *origin, seq uint32, now time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.hosts[k]; e != nil {
		f.remove(k, e)
	}
	e, _ := f.add(k, o, now)
	if e != nil {
		e.seq = seq
	}
	return e != nil
}

// drop forgets a station if it is behind o.
func (f *fdb) drop(k station, o *origin) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.hosts[k]
	if e == nil || e.at != o {
		return false
	}
	f.remove(k, e)
	return true
}

// raise gives a station on our side a greater sequence number.
func (f *fdb) raise(k station, seq uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.hosts[k]; e != nil && e.at.remote == nil && e.seq < seq {
		e.seq = seq
		f.local(k)
	}
}

// dropSilent forgets a station behind o if it has aged.
func (f *fdb) dropSilent(k station, o *origin, now time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.hosts[k]
	if e == nil || e.at != o || !f.expired(e, now) {
		return false
	}
	f.remove(k, e)
	return true
}

// ours calls yield for every station on our side, aged ones too. yield must not call f.
func (f *fdb) ours(now time.Duration, yield func(k station, p sighting, age time.Duration)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for k, e := range f.hosts {
		if e.at.remote == nil {
			seen := time.Duration(e.seen.Load())
			yield(k, sighting{at: e.at, seq: e.seq, seen: seen}, now-seen)
		}
	}
}

// reserve keeps the address of our own probes from others.
func (f *fdb) reserve(probe MAC) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.probe = probe
	for k, e := range f.hosts {
		if k.mac() == probe {
			f.remove(k, e)
		}
	}
}
