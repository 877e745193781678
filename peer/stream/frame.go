package stream

import (
	"encoding/binary"
	"errors"
)

// A frame is a length and a datagram; length 0 says that the sender is alive.
//
//	+------------+----------
//	| length (2) | datagram
//	+------------+----------
const (
	headerLen = 2
	// maxDatagram is the largest datagram that crosses a stream.
	maxDatagram = 2048
)

// errFrame says that what comes is no frame: the stream cannot be read on.
var errFrame = errors.New("a frame is larger than any datagram")

// appendFrame appends the frame around a datagram of at most maxDatagram bytes.
func appendFrame(b, datagram []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(datagram))), datagram...)
}

// nextFrame takes the first frame from b. With less than a whole one in it, it
// returns b as rest and ok is false.
func nextFrame(b []byte) (datagram, rest []byte, ok bool, err error) {
	if len(b) < headerLen {
		return nil, b, false, nil
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > maxDatagram {
		return nil, b, false, errFrame
	}
	if len(b) < headerLen+n {
		return nil, b, false, nil
	}
	end := headerLen + n
	return b[headerLen:end:end], b[end:], true, nil
}
