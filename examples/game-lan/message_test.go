package main

import (
	"bytes"
	"testing"
)

func TestMessages(t *testing.T) {
	n := nonce{1, 2, 3, 4, 5, 6, 7, 8}
	ask, answer := []byte("LAN?\x01\x02\x03\x04\x05\x06\x07\x08"), []byte("LAN!\x01\x02\x03\x04\x05\x06\x07\x08Anna")
	if got := appendAsk(nil, n); !bytes.Equal(got, ask) {
		t.Errorf("ask is %q", got)
	}
	if got := appendAnswer(nil, n, "Anna"); !bytes.Equal(got, answer) {
		t.Errorf("answer is %q", got)
	}
	if got, err := parseAsk(ask); got != n || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if got, name, err := parseAnswer(answer); got != n || name != "Anna" || err != nil {
		t.Errorf("%v, %q, %v", got, name, err)
	}
}

func FuzzMessages(f *testing.F) {
	for _, seed := range []string{"", "LAN?", "LAN!12345678", "LAN?12345678", "LAN!12345678\x1b[2J", "LAN!12345678Anna"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := parseAsk(b); err == nil && !bytes.Equal(appendAsk(nil, n), b) {
			t.Errorf("%q is taken for another question", b)
		}
		if n, name, err := parseAnswer(b); err == nil && (!bytes.Equal(appendAnswer(nil, n, name), b) || validName(name) != nil) {
			t.Errorf("%q is taken for another answer", b)
		}
	})
}
