package join

import (
	"bytes"
	"crypto/sha256"
)

// parts puts a blob together. Parts of a newer blob push out those of an older.
type parts struct {
	hash  [32]byte
	bytes [][]byte // nil where one is missing
}

func (p *parts) add(s state) error {
	if s.Parts < 1 || s.Parts > maxParts || s.Part >= s.Parts || len(s.Bytes) > maxPart {
		return ErrMessage
	}
	if s.Hash != p.hash || len(p.bytes) != int(s.Parts) {
		p.hash, p.bytes = s.Hash, make([][]byte, s.Parts)
	}
	p.bytes[s.Part] = append([]byte{}, s.Bytes...)
	return nil
}

// whole is the blob once it is complete.
func (p *parts) whole() ([]byte, bool) {
	if len(p.bytes) == 0 {
		return nil, false
	}
	for _, part := range p.bytes {
		if part == nil {
			return nil, false
		}
	}
	all := bytes.Join(p.bytes, nil)
	if sha256.Sum256(all) != p.hash {
		p.bytes = nil // an introducer has exchanged a part: begin again
		return nil, false
	}
	return all, true
}
