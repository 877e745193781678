package directory

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"meshd/keys"
	"meshd/mesh/record"
)

// neighbour is what is kept of the exchange with one.
type neighbour struct {
	in, out *rate.Limiter
	wanted  []entry // in order; not asked for yet
	wants   map[entry]bool
	asked   []pull
	gained  bool // something new, since the last digest to it
	compare time.Time
	differs time.Time // when it last turned out that one of us has something new for the other
	next    int       // the bucket with which the next answer to a summary begins
}

// pull is one that has been sent, with the hashes of the records that have not come yet.
type pull struct {
	hashes map[uint64]bool
	at     time.Time
}

func (d *Directory) neighbour(id keys.NodeID) *neighbour {
	n := d.neighbours[id]
	if n == nil {
		n = &neighbour{
			in:    rate.NewLimiter(recordRate, recordBurst),
			out:   rate.NewLimiter(recordRate, recordBurst),
			wants: map[entry]bool{},
		}
		d.neighbours[id] = n
	}
	return n
}

// Forget drops what is kept of a neighbour for the exchange with it, when it is a member no longer. Its budgets go too: it
// is not for each session that ends.
func (d *Directory) Forget(neighbour keys.NodeID) { delete(d.neighbours, neighbour) }

// Behind says whether the exchange with a neighbour has shown differences in the last seconds. While it does, a digest is
// worth sending every second and not every ten: what was lost is asked for again.
func (d *Directory) Behind(neighbour keys.NodeID, now time.Time) bool {
	n := d.neighbours[neighbour]
	return n != nil && !n.differs.IsZero() && now.Sub(n.differs) < behindFor
}

// Sum returns what starts an exchange with a neighbour: on a new session at once, and every 10 s with one. As long as both
// know the same, it is all that is sent.
func (d *Directory) Sum() []byte {
	return binary.BigEndian.AppendUint64([]byte{kindSum}, d.sum())
}

func (d *Directory) sum() uint64 {
	hash := sha256.Sum256(d.summary()[1:])
	return binary.BigEndian.Uint64(hash[:])
}

// Digest returns what we know: of many records, a summary.
func (d *Directory) Digest() [][]byte {
	if len(d.store.order) <= fewRecords {
		return [][]byte{appendDigest(0, 0, ^uint64(0), d.store.order)}
	}
	return [][]byte{d.summary()}
}

func (d *Directory) summary() []byte {
	msg := make([]byte, 1, 1+8*buckets)
	msg[0] = kindSummary
	for _, h := range d.store.sums {
		msg = binary.BigEndian.AppendUint64(msg, h)
	}
	return msg
}

func bucketOf(place uint64) int { return int(place >> 57) }

// HandleSync takes a message from a neighbour. The replies go back to it, the delta to the other neighbours. Whatever the
// message, the replies are at most twenty datagrams, and over time at most what the neighbour's budget allows.
func (d *Directory) HandleSync(from keys.NodeID, msg []byte, now time.Time) (replies, delta [][]byte, res MergeResult) {
	n := d.neighbour(from)
	var pushed [][]byte
	ok := len(msg) > 0 && len(msg) <= MaxMessage
	if ok {
		switch msg[0] {
		case kindPush:
			pushed, ok = parsePush(msg[1:])
		case kindSummary:
			replies, ok = d.answerSummary(n, msg[1:], now)
		case kindDigest:
			replies, ok = d.answerDigest(n, msg[1:], now)
		case kindPull:
			replies, ok = d.answerPull(n, msg[1:], now)
		case kindSum:
			replies, ok = d.answerSum(n, msg[1:], now)
		default:
			ok = false
		}
	}
	within, over := n.within(d, pushed, now)
	delta, res = d.Merge(within, now)
	if over > 0 {
		res.Rejected[RejectBudget] += over
	}
	if !ok {
		res.Rejected[RejectMessage]++
	}
	if len(pushed) > 0 {
		replies = d.afterPush(n, within, len(delta) > 0, now)
	}
	return replies, delta, res
}

// within returns what the neighbour's budget allows of records that it has pushed. What is known already costs it nothing.
func (n *neighbour) within(d *Directory, raws [][]byte, now time.Time) (out [][]byte, over int) {
	for _, raw := range raws {
		switch {
		case d.store.known[record.HashOf(raw)]:
			out = append(out, raw)
		case n.in.AllowN(now, 1):
			out = append(out, raw)
		default:
			over++
		}
	}
	return out, over
}

func (d *Directory) answerSum(n *neighbour, b []byte, now time.Time) ([][]byte, bool) {
	if len(b) != 8 {
		return nil, false
	}
	if binary.BigEndian.Uint64(b) == d.sum() || !n.out.AllowN(now, 1) {
		return nil, true
	}
	return d.Digest(), true
}

// answerSummary sends digests of the buckets that differ; where those are too many, the next answer goes on behind them.
func (d *Directory) answerSummary(n *neighbour, b []byte, now time.Time) ([][]byte, bool) {
	if len(b) != 8*buckets {
		return nil, false
	}
	ours := d.store.sums
	differs := func(i int) bool { return i < buckets && ours[i] != binary.BigEndian.Uint64(b[8*i:]) }
	var out [][]byte
	for i := range buckets {
		first := (n.next + i) % buckets
		if !differs(first) || i > 0 && first > 0 && differs(first-1) { // the latter is in the digest before
			continue
		}
		last := first
		for differs(last + 1) {
			last++
		}
		pages := d.pages(1, uint64(first)<<57, uint64(last)<<57|(1<<57-1), maxPages-len(out))
		if len(pages) == 0 || !n.out.AllowN(now, len(pages)) {
			break
		}
		out = append(out, pages...)
		n.differs = now
		n.next = (last + 1) % buckets
		if p, ok := parseDigest(pages[len(pages)-1][1:]); ok {
			n.next = (bucketOf(p.high) + 1) % buckets
		}
	}
	return out, true
}

// pages are digests of what lies between low and high: at most limit of them, so that they may end before high.
func (d *Directory) pages(depth byte, low, high uint64, limit int) (out [][]byte) {
	items := d.store.between(low, high)
	for len(out) < limit {
		if len(items) <= maxEntries {
			return append(out, appendDigest(depth, low, high, items))
		}
		cut := items[maxEntries-1].place
		out = append(out, appendDigest(depth, low, cut, items[:maxEntries]))
		items, low = items[maxEntries:], cut+1
	}
	return out
}

// answerDigest pushes what is newer here and pulls what is newer there. Two different records of one version go both ways:
// both sides raise the alarm and choose the same.
func (d *Directory) answerDigest(n *neighbour, b []byte, now time.Time) ([][]byte, bool) {
	theirs, ok := parseDigest(b)
	if !ok {
		return nil, false
	}
	listed := make(map[uint64]entry, len(theirs.entries))
	for _, e := range theirs.entries {
		listed[e.place] = e
	}
	var newer []*item
	for _, it := range d.store.between(theirs.low, theirs.high) {
		ours := it.entry()
		if e, there := listed[ours.place]; !there || e.version.Compare(ours.version) <= 0 && e != ours {
			newer = append(newer, it)
		}
	}
	replies := d.offer(n, theirs, newer, now)
	n.want(d, theirs.entries)
	if len(newer) > 0 || len(n.wanted) > 0 {
		n.differs = now
	}
	return append(replies, n.pulls(d, now)...), true
}

// offer pushes records that the neighbour lacks, or lists them where they are many: it then asks at its own pace.
func (d *Directory) offer(n *neighbour, theirs digest, newer []*item, now time.Time) [][]byte {
	if len(newer) > maxPushes && theirs.depth < maxDepth {
		pages := d.pages(theirs.depth+1, newer[0].place, theirs.high, maxPages)
		if n.out.AllowN(now, len(pages)) {
			return pages
		}
		return nil
	}
	var raws [][]byte
	for _, it := range ranked(newer) {
		if len(raws) < maxPushes && n.out.AllowN(now, 1) {
			raws = append(raws, it.rec.Raw())
		}
	}
	return Push(raws)
}

// want notes what the neighbour has and we have not.
func (n *neighbour) want(d *Directory, theirs []entry) {
	for _, e := range theirs {
		if len(n.wanted) < maxWanted && !n.wants[e] && d.lacks(e) {
			n.wanted = append(n.wanted, e)
			n.wants[e] = true
		}
	}
}

// lacks says whether e is newer than what is here, or another of the same version. What is parked is here.
func (d *Directory) lacks(e entry) bool {
	for _, r := range d.parked {
		if binary.BigEndian.Uint64(r.Hash[:]) == e.hash {
			return false
		}
	}
	for _, it := range d.store.between(e.place, e.place) {
		ours := it.entry()
		if c := ours.version.Compare(e.version); c > 0 || c == 0 && ours.hash == e.hash {
			return false
		}
	}
	return true
}

// pulls asks for the next records that are wanted, as many as may be under way.
func (n *neighbour) pulls(d *Directory, now time.Time) (out [][]byte) {
	n.asked = slices.DeleteFunc(n.asked, func(p pull) bool { return now.Sub(p.at) > pullTimeout })
	asked := n.outstanding()
	room := min(maxAsked-asked, int(n.in.TokensAt(now))-asked)
	for len(n.wanted) > 0 && room >= maxPull {
		msg := []byte{kindPull}
		p := pull{hashes: map[uint64]bool{}, at: now}
		for len(n.wanted) > 0 && len(msg) < 1+8*maxPull {
			e := n.wanted[0]
			n.wanted = n.wanted[1:]
			delete(n.wants, e)
			if d.lacks(e) {
				msg = binary.BigEndian.AppendUint64(msg, e.place)
				p.hashes[e.hash] = true
			}
		}
		if len(p.hashes) > 0 {
			out = append(out, msg)
			n.asked = append(n.asked, p)
			room -= len(p.hashes)
		}
	}
	return out
}

func (n *neighbour) outstanding() (sum int) {
	for _, p := range n.asked {
		sum += len(p.hashes)
	}
	return sum
}

// arrived notes records that were asked for. What an earlier pull has asked for and is not there by now was lost: it shows
// again in the next digest.
func (n *neighbour) arrived(raws [][]byte) (any bool) {
	for _, raw := range raws {
		h := record.HashOf(raw)
		hash := binary.BigEndian.Uint64(h[:])
		for i, p := range n.asked {
			if p.hashes[hash] {
				delete(p.hashes, hash)
				n.asked = slices.Delete(n.asked, 0, i)
				any = true
				break
			}
		}
	}
	return any
}

func (d *Directory) answerPull(n *neighbour, b []byte, now time.Time) ([][]byte, bool) {
	if len(b)%8 != 0 || len(b)/8 > maxPull {
		return nil, false
	}
	var raws [][]byte
	for ; len(b) > 0; b = b[8:] {
		place := binary.BigEndian.Uint64(b)
		for _, it := range d.store.between(place, place) {
			if len(raws) < maxPull && n.out.AllowN(now, 1) {
				raws = append(raws, it.rec.Raw())
			}
		}
	}
	return Push(raws), true
}

// afterPush goes on where a push has brought what was asked for: with the next pull, and at the end with a digest of our
// own, for there may be more than one answer has room for.
func (d *Directory) afterPush(n *neighbour, raws [][]byte, gained bool, now time.Time) [][]byte {
	n.gained = n.gained || gained
	asked := n.arrived(raws)
	if pulls := n.pulls(d, now); pulls != nil {
		return pulls
	}
	if asked && n.gained && len(n.wanted) == 0 && n.outstanding() <= maxPull/2 && now.Sub(n.compare) >= digestPause {
		n.gained, n.compare = false, now
		return d.Digest()
	}
	return nil
}
