// Package canon is the one binary encoding of meshd's own signed and carried
// structures: CBOR (RFC 8949) in core deterministic form, bounded, and strict.
//
// What Unmarshal accepts, Marshal gives back byte for byte. So a value has one
// encoding, a signature covers one value, and nothing hides in unused bytes.
package canon

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// ErrNotCanonical says that bytes decode, but are not the encoding of what they
// decode to.
var ErrNotCanonical = errors.New("not in canonical form")

// modes holds the two configured codecs; both are immutable and safe for
// concurrent use.
type modes struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

var codec = sync.OnceValue(func() modes {
	enc, err := cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		ShortestFloat: cbor.ShortestFloat16,
		IndefLength:   cbor.IndefLengthForbidden,
		TagsMd:        cbor.TagsForbidden,
		NilContainers: cbor.NilContainerAsEmpty, // so that null never stands for an empty one
	}.EncMode()
	if err != nil {
		panic("canon: encoder options: " + err.Error())
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   8,
		MaxArrayElements:  4096,
		MaxMapPairs:       1024,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic("canon: decoder options: " + err.Error())
	}
	return modes{enc, dec}
})

// Marshal encodes v.
func Marshal(v any) ([]byte, error) {
	b, err := codec().enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// Unmarshal decodes all of b into v and refuses whatever Marshal would have
// written differently. On an error v is unspecified.
func Unmarshal(b []byte, v any) error {
	if err := codec().dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	again, err := Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("decode %T: %w", v, ErrNotCanonical)
	}
	return nil
}
