package flood

import (
	"encoding/binary"
	"slices"

	"meshd/keys"
)

// A message between neighbours, behind the byte that says that it is a control message of
// this kind (PROTOCOL.md, 4.5):
//
//	 0      1
//	 +------+---------------------------------------------
//	 | step | 1 to 34 runs
//	 +------+---------------------------------------------
//	run: origin (16), epoch (4), number (8), further (4)
//
// Bit i of further, from the lowest, stands for the frame number+1+i.
const (
	runLen  = 32
	maxRuns = 34
	runSpan = 33 // frames in one run, at most
)

// Step says what a message is.
type Step uint8

// The steps.
const (
	Have Step = 1 // these frames are here
	Want Step = 2 // please send a copy of these
)

// Message names frames.
type Message struct {
	Step  Step
	Names []Name
}

// Append appends the message to dst, with as many of the names as it holds, which must be
// sorted as sortNames does. It returns those that are left.
func (m Message) Append(dst []byte) (out []byte, left []Name) {
	dst = append(dst, byte(m.Step))
	names := m.Names
	for range maxRuns {
		if len(names) == 0 {
			break
		}
		first, further, n := names[0], uint32(0), 1
		for n < len(names) && names[n].Origin == first.Origin && names[n].Epoch == first.Epoch && names[n].Number-first.Number < runSpan {
			if d := names[n].Number - first.Number; d > 0 { // else it is there twice
				further |= 1 << (d - 1)
			}
			n++
		}
		names = names[n:]
		dst = append(dst, first.Origin[:]...)
		dst = binary.BigEndian.AppendUint32(dst, first.Epoch)
		dst = binary.BigEndian.AppendUint64(dst, first.Number)
		dst = binary.BigEndian.AppendUint32(dst, further)
	}
	return dst, names
}

// ParseMessage reads what Append wrote. Of a run that goes beyond the greatest number,
// what is beyond is left out.
func ParseMessage(b []byte) (Message, error) {
	if len(b) < 1+runLen || (len(b)-1)%runLen != 0 || len(b) > 1+maxRuns*runLen {
		return Message{}, ErrFormat
	}
	m := Message{Step: Step(b[0])}
	if m.Step != Have && m.Step != Want {
		return Message{}, ErrFormat
	}
	for b = b[1:]; len(b) > 0; b = b[runLen:] {
		n := Name{keys.NodeID(b[:16]), binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint64(b[20:])}
		if n.Number == 0 {
			return Message{}, ErrFormat
		}
		m.Names = append(m.Names, n)
		for further, k := binary.BigEndian.Uint32(b[28:]), n.Number+1; further != 0 && k != 0; further, k = further>>1, k+1 {
			if further&1 != 0 {
				m.Names = append(m.Names, Name{n.Origin, n.Epoch, k})
			}
		}
	}
	return m, nil
}

// sortNames brings names into the order in which Append finds runs.
func sortNames(names []Name) { slices.SortFunc(names, compareNames) }
