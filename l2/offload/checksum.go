package offload

import (
	"encoding/binary"
	"math/bits"
)

// Sums are ones' complement sums of 16-bit words (RFC 1071). Words are added in the
// byte order of the machine, eight bytes at a time; what is stored in the same
// order is right on every machine (RFC 1071, 2 B).

// sum adds b to acc. What is added after an odd number of bytes would be misplaced.
func sum(b []byte, acc uint64) uint64 {
	order := binary.NativeEndian
	var carry uint64
	for len(b) >= 64 {
		w := b[:64:64]
		acc, carry = bits.Add64(acc, order.Uint64(w[0:]), 0)
		acc, carry = bits.Add64(acc, order.Uint64(w[8:]), carry)
		acc, carry = bits.Add64(acc, order.Uint64(w[16:]), carry)
		acc, carry = bits.Add64(acc, order.Uint64(w[24:]), carry)
		acc, carry = bits.Add64(acc, order.Uint64(w[32:]), carry)
		acc, carry = bits.Add64(acc, order.Uint64(w[40:]), carry)
		acc, carry = bits.Add64(acc, order.Uint64(w[48:]), carry)
		acc, carry = bits.Add64(acc, order.Uint64(w[56:]), carry)
		acc, carry = bits.Add64(acc, 0, carry)
		acc += carry
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, order.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		acc, carry = bits.Add64(acc, order.Uint64(last[:]), 0)
		acc += carry
	}
	return acc
}

// fold brings a sum down to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff // 33 bits
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff // 17 bits
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// putSum stores a folded sum.
func putSum(b []byte, s uint16) { binary.NativeEndian.PutUint16(b, s) }

// word is v as sum would read it from a packet.
func word(v uint16) uint64 {
	return uint64(binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)}))
}
