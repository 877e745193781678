package directory

import (
	"encoding/binary"
	"time"

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
//	5 sum      first 8 bytes of the SHA-256 of what a summary would hold
//	           answer: where ours differs, a summary, or a digest of depth 0 of a small directory
//
// A record's place is 2 bits for its type (0 revocation, 1 certificate, 2 network, 3 node) and the first 62 bits of SHA-256 over
// its key (type, owner, by). A bucket is all records whose places share the first 7 bits.
// A digest lists everything between low and high, both included. A bucket's hash is the exclusive or of its records' hashes.
const (
	kindPush    = 1
	kindSummary = 2
	kindDigest  = 3
	kindPull    = 4
	kindSum     = 5

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
