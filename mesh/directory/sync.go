package directory

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"meshd/keys"
	"meshd/mesh/record"
)

// The exchange of records between two neighbours. All messages are datagrams that may be lost, repeated or reordered;
// whatever was missed shows in the next summary. Kinds and layouts, integers big-endian:
//
//	1 push     (length (2), record)*
//	           answer: the next pull, if one was under way
//	2 summary  128 × hash of a bucket (8)
//	           answer: digests of the buckets that differ, with depth 1
//	3 digest   depth (1), low (8), high (8), (place (8), version (8), hash (8))*
//	           answer: a pull of what is newer there; pushes of what is newer here, or, where that is more than a few
//	           records, digests of it with the next depth. A digest of depth 2 is not answered by digests.
//	4 pull     place (8) *
//	           answer: pushes
//
// A record's place is 2 bits for its type (0 revocation, 1 certificate, 2 network, 3 node) and the first 62 bits of SHA-256 over
// its key (type, owner, by). A bucket is all records whose places share the first 7 bits.
// A digest lists everything between low and high, both included. A bucket's hash is the exclusive or of its records' hashes.
const (
	kindPush    = 1
	kindSummary = 2
	kindDigest  = 3
	kindPull    = 4

	// MaxMessage bounds a message, so that it fits a control datagram of 1,100 bytes with its kind.
	MaxMessage = 1099

	buckets    = 128
	digestHead = 18
	entrySize  = 24
	maxEntries = (MaxMessage - digestHead) / entrySize
	maxDepth   = 2

	maxPages   = 8  // digests in answer to one summary
	maxPushes  = 16 // records in answer to one digest, or digests instead
	maxPull    = 16 // records asked for at a time
	maxWanted  = 4096
	fewRecords = maxEntries // a directory this small sends a digest at once, without a summary

	maxAsked    = 4 * maxPull // records under way from one neighbour
	pullTimeout = 2 * time.Second
	behindFor   = 5 * time.Second
	digestPause = time.Second // between digests that go on where a push has ended

	// What a neighbour may send us, and what it may make us send, in records (a digest counts as one).
	recordRate, recordBurst = 200, 1000
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

// Push packs records (a delta) into messages for neighbours.
func Push(raws [][]byte) [][]byte {
	var out [][]byte
	var msg []byte
	for _, raw := range raws {
		if len(raw) == 0 || len(raw) > record.MaxSize {
			continue
		}
		if msg != nil && len(msg)+2+len(raw) > MaxMessage {
			out = append(out, msg)
			msg = nil
		}
		if msg == nil {
			msg = []byte{kindPush}
		}
		msg = binary.BigEndian.AppendUint16(msg, uint16(len(raw)))
		msg = append(msg, raw...)
	}
	if msg != nil {
		out = append(out, msg)
	}
	return out
}

// parsePush returns the records of a push without its kind.
func parsePush(b []byte) (raws [][]byte, ok bool) {
	for len(b) > 0 {
		if len(b) < 2 {
			return nil, false
		}
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; n == 0 || n > len(b) {
			return nil, false
		}
		raws = append(raws, b[:n])
		b = b[n:]
	}
	return raws, true
}

// Digest returns what starts an exchange with a neighbour: on a new session at once, and every 10 s with one.
func (d *Directory) Digest() [][]byte {
	if len(d.store.order) <= fewRecords {
		return [][]byte{appendDigest(0, 0, ^uint64(0), d.store.order)}
	}
	return [][]byte{d.summary()}
}

func (d *Directory) summary() []byte {
	msg := make([]byte, 1, 1+8*buckets)
	msg[0] = kindSummary
	for _, h := range d.bucketHashes() {
		msg = binary.BigEndian.AppendUint64(msg, h)
	}
	return msg
}

func bucketOf(place uint64) int { return int(place >> 57) }

func (d *Directory) bucketHashes() (hashes [buckets]uint64) {
	for _, it := range d.store.order {
		hashes[bucketOf(it.place)] ^= binary.BigEndian.Uint64(it.rec.Hash[:])
	}
	return hashes
}

// entry is a record in a digest.
type entry struct {
	place   uint64
	version record.Version
	hash    uint64
}

func (it *item) entry() entry {
	return entry{it.place, it.rec.Version, binary.BigEndian.Uint64(it.rec.Hash[:])}
}

func appendDigest(depth byte, low, high uint64, items []*item) []byte {
	msg := make([]byte, 2, digestHead+entrySize*len(items))
	msg[0], msg[1] = kindDigest, depth
	msg = binary.BigEndian.AppendUint64(msg, low)
	msg = binary.BigEndian.AppendUint64(msg, high)
	for _, it := range items {
		e := it.entry()
		msg = binary.BigEndian.AppendUint64(msg, e.place)
		msg = binary.BigEndian.AppendUint32(msg, e.version.Epoch)
		msg = binary.BigEndian.AppendUint32(msg, e.version.Counter)
		msg = binary.BigEndian.AppendUint64(msg, e.hash)
	}
	return msg
}

// digest is a parsed one.
type digest struct {
	depth     byte
	low, high uint64
	entries   []entry
}

// parseDigest reads a digest without its kind.
func parseDigest(b []byte) (g digest, ok bool) {
	const head = digestHead - 1
	if len(b) < head || (len(b)-head)%entrySize != 0 || (len(b)-head)/entrySize > maxEntries {
		return g, false
	}
	g.depth, g.low, g.high = b[0], binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])
	last := g.low
	for b = b[head:]; len(b) > 0; b = b[entrySize:] {
		e := entry{
			place:   binary.BigEndian.Uint64(b),
			version: record.Version{Epoch: binary.BigEndian.Uint32(b[8:]), Counter: binary.BigEndian.Uint32(b[12:])},
			hash:    binary.BigEndian.Uint64(b[16:]),
		}
		if e.place < last || e.place > g.high {
			return g, false
		}
		last = e.place
		g.entries = append(g.entries, e)
	}
	return g, g.low <= g.high && g.depth <= maxDepth
}

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

// answerSummary sends digests of the buckets that differ; where those are too many, the next answer goes on behind them.
func (d *Directory) answerSummary(n *neighbour, b []byte, now time.Time) ([][]byte, bool) {
	if len(b) != 8*buckets {
		return nil, false
	}
	ours := d.bucketHashes()
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

// ranked returns items in the order in which they are best read.
func ranked(items []*item) []*item {
	out := slices.Clone(items)
	slices.SortFunc(out, func(a, b *item) int { return cmp.Or(a.rec.Key.Compare(b.rec.Key), cmp.Compare(a.place, b.place)) })
	return out
}
