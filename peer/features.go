package peer

import (
	"encoding/binary"
	"time"

	"meshd/peer/inner"
	"meshd/peer/wireguard"
)

// Two processes that share a key tell each other what they can beyond version 1 of
// the protocol, in control messages between engines:
//
//	 0      1                        2              3
//	+------+------------------------+--------------+------------------------+- - -
//	| 0x10 | flags: bit 0 = answer! | features (1) | unix time in ns (8)    | more, later
//	+------+------------------------+--------------+------------------------+- - -
//
// They hold for the key that they came under. A key belongs to one process on each
// side, so that a restart, with another version perhaps, begins anew, and until the
// message has come nothing is taken for granted. The question goes with frames, and
// is repeated with them: who has nothing to send need not know. The time, which older
// versions leave out, is the sender's: so users are told of clocks that are wrong.
const (
	controlFeatures  = 0x10
	featuresLen      = 3
	featuresTimed    = featuresLen + 8
	flagAnswer       = 1 << 0
	featurePartial   = 1 << 0 // takes frames whose checksum is left out
	askFeaturesFirst = 100 * time.Millisecond
	askFeaturesMost  = 10 * time.Second // an older version never answers
)

// takesPartial says whether who has the other half of key takes frames whose
// checksum is left out.
func (r *Remote) takesPartial(key *wireguard.Keypair) bool {
	return r.engine.features&key.Far.Features.Load()&featurePartial != 0
}

// offer adds, where it is time to, our features to a batch that is about to go.
// l.mu is held.
func (l *Lane) offer(b *batch) {
	r := l.remote
	key, to := b.key, b.route
	if key == nil || to == nil || b.control || key.Far.Settled.Load() || Class(r.class.Load()) != Member {
		return
	}
	now := to.sent.Load() // just noted
	wait := min(askFeaturesFirst<<min(key.Far.Asked.Load(), 16), askFeaturesMost)
	if last := key.Far.AskedAt.Load(); last != 0 && now-last < int64(wait) {
		return
	}
	key.Far.AskedAt.Store(now)
	key.Far.Asked.Add(1)
	l.sealFeatures(key, to, flagAnswer)
}

// sealFeatures needs l.mu.
func (l *Lane) sealFeatures(key *wireguard.Keypair, to *route, flags byte) {
	msg := appendFeatures(nil, l.remote.engine.features, flags, l.remote.engine.now())
	l.seal(key, to, inner.Header{Kind: inner.KindControl}, nil, msg)
}

func appendFeatures(dst []byte, features uint32, flags byte, now time.Time) []byte {
	dst = append(dst, controlFeatures, flags, byte(features))
	return binary.BigEndian.AppendUint64(dst, uint64(now.UnixNano()))
}

// parseFeatures reads what appendFeatures wrote; the time is zero where there is none.
// What may follow, and unknown bits, are for later versions.
func parseFeatures(body []byte) (features uint32, answer bool, at time.Time, ok bool) {
	if len(body) < featuresLen || body[0] != controlFeatures {
		return 0, false, time.Time{}, false
	}
	if len(body) >= featuresTimed {
		at = time.Unix(0, int64(binary.BigEndian.Uint64(body[featuresLen:])))
	}
	return uint32(body[2]), body[1]&flagAnswer != 0, at, true
}

// features takes what the remote says of itself under a key. The answer goes under
// the same key.
func (rx *receiver) features(from keyEntry, body []byte) {
	r := from.remote
	features, answer, at, ok := parseFeatures(body)
	if Class(r.class.Load()) != Member || !ok {
		rx.engine.counts.Malformed.Add(1)
		return
	}
	from.key.Far.Features.Store(features)
	if !at.IsZero() {
		r.clock.Store(at.UnixNano() - rx.engine.stamp(rx.now))
	}
	if !answer { // it is one
		from.key.Far.Settled.Store(true)
		return
	}
	to := r.route.Load()
	if to == nil {
		return
	}
	r.first.mu.Lock()
	r.first.sealFeatures(from.key, to, 0)
	r.first.mu.Unlock()
	r.Flush()
}

// ClockAhead is how far the remote's clock is ahead of this host's, as it said last, at
// now, and whether it did. What it said counts from there by a clock that nobody sets, so
// that it holds when this host's is set right.
func (r *Remote) ClockAhead(now time.Time) (ahead time.Duration, told bool) {
	clock := r.clock.Load()
	return time.Duration(clock + r.engine.stamp(now) - now.UnixNano()), clock != 0
}
