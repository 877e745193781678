package gossip

import "encoding/binary"

// maxText bounds strings and byte fields: a name has 26 bytes, an address 16.
const maxText = 64

// reader decodes the few MessagePack types that memberlist's messages are made of, from bounded input. After a fault bad is
// set and every result is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, min(n, 8))
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte { return r.take(1)[0] }

// mapSize reads the head of a map of at most 15 pairs.
func (r *reader) mapSize() int {
	c := r.byte()
	if c&0xf0 != 0x80 {
		r.bad = true
		return 0
	}
	return int(c & 0x0f)
}

// bytes reads a string or binary of at most maxText bytes, or nil.
func (r *reader) bytes() []byte {
	c, n := r.byte(), 0
	switch {
	case c == 0xc0: // nil
		return nil
	case c&0xe0 == 0xa0: // fixstr
		n = int(c & 0x1f)
	case c == 0xd9 || c == 0xc4: // str 8, bin 8
		n = int(r.byte())
	case c == 0xda || c == 0xc5: // str 16, bin 16
		n = int(binary.BigEndian.Uint16(r.take(2)))
	default:
		r.bad = true
	}
	if r.bad || n > maxText {
		r.bad = true
		return nil
	}
	return r.take(n)
}

// uint reads an unsigned integer of at most 32 bits.
func (r *reader) uint() uint32 {
	c := r.byte()
	switch {
	case c <= 0x7f:
		return uint32(c)
	case c == 0xcc:
		return uint32(r.byte())
	case c == 0xcd:
		return uint32(binary.BigEndian.Uint16(r.take(2)))
	case c == 0xce:
		return binary.BigEndian.Uint32(r.take(4))
	}
	r.bad = true
	return 0
}

func (r *reader) into(field any) {
	switch p := field.(type) {
	case *uint32:
		*p = r.uint()
	case *uint16:
		v := r.uint()
		if v > 0xffff {
			r.bad = true
		}
		*p = uint16(v)
	case *string:
		*p = string(r.bytes())
	case *[]byte:
		*p = r.bytes()
	case *bool:
		c := r.byte()
		if c != 0xc2 && c != 0xc3 {
			r.bad = true
		}
		*p = c == 0xc3
	default:
		r.bad = true
	}
}

func appendUint(b []byte, v uint32) []byte {
	switch {
	case v <= 0x7f:
		return append(b, byte(v))
	case v <= 0xff:
		return append(b, 0xcc, byte(v))
	case v <= 0xffff:
		return append(b, 0xcd, byte(v>>8), byte(v))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xce), v)
}

// appendBytes writes strings and binary alike, as memberlist's codec does.
func appendBytes(b []byte, s string) []byte {
	if len(s) <= 0x1f {
		b = append(b, 0xa0|byte(len(s)))
	} else {
		b = append(b, 0xda, byte(len(s)>>8), byte(len(s)))
	}
	return append(b, s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0xc3)
	}
	return append(b, 0xc2)
}
