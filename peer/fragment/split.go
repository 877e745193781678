package fragment

import "encoding/binary"

const (
	// HeaderLen is the size of the header of a piece.
	HeaderLen = 6
	// MaxPieces is how many pieces a frame may have.
	MaxPieces = 8
	// MaxFrame is the largest frame, of 9000 bytes, an Ethernet header and two VLAN tags (9018+4), or a copy of
	// such a frame for all (flood.HeaderLen).
	MaxFrame = 9022 + 108
)

// Pieces is the number of packets in which a frame of frameLen bytes crosses a
// path whose largest body is maxBody (inner.MaxBody): 1 when it fits as it is
// and is not to be split, 0 when it cannot cross at all.
func Pieces(frameLen, maxBody int) int {
	if frameLen <= 0 || frameLen > MaxFrame {
		return 0
	}
	if frameLen <= maxBody {
		return 1
	}
	room := maxBody - HeaderLen
	if room <= 0 {
		return 0
	}
	count := (frameLen + room - 1) / room
	if count > MaxPieces {
		return 0
	}
	return count
}

// Piece returns the bytes of frame that are piece index (from 0) of count, as
// Pieces gave it. All have the same size but the last, which is shorter by less
// than count bytes: equal sizes suit UDP_SEGMENT, and no small packet is left over.
func Piece(frame []byte, index, count int) []byte {
	size := (len(frame) + count - 1) / count
	return frame[index*size : min((index+1)*size, len(frame))]
}

// Append appends piece index of count of the frame with number id to dst.
func Append(dst []byte, id uint32, index, count int, piece []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, id)
	dst = append(dst, byte(index), byte(count))
	return append(dst, piece...)
}

// Parse takes apart what Append made. It checks the bounds that every piece
// must keep alone; the Reassembler checks the pieces against each other.
func Parse(body []byte) (id uint32, index, count int, piece []byte, ok bool) {
	if len(body) <= HeaderLen {
		return 0, 0, 0, nil, false
	}
	id = binary.BigEndian.Uint32(body)
	index, count, piece = int(body[4]), int(body[5]), body[HeaderLen:]
	if count < 2 || count > MaxPieces || index >= count || len(piece) > MaxFrame {
		return 0, 0, 0, nil, false
	}
	return id, index, count, piece, true
}
