package main

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

// Messages, in one datagram each:
//
//	ask      "LAN?"  nonce (8 bytes)
//	answer   "LAN!"  nonce (8 bytes, of the ask)  name of the server (1 to 64 bytes of UTF-8)
const (
	askMagic    = "LAN?"
	answerMagic = "LAN!"
	maxName     = 64
)

// nonce lets a client tell answers to its own question from others.
type nonce [8]byte

var errMessage = errors.New("no message of game-lan")

func appendAsk(b []byte, n nonce) []byte { return append(append(b, askMagic...), n[:]...) }

func parseAsk(b []byte) (n nonce, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(askMagic))
	if !ok || len(rest) != len(n) {
		return n, errMessage
	}
	return nonce(rest), nil
}

func appendAnswer(b []byte, n nonce, name string) []byte {
	return append(append(append(b, answerMagic...), n[:]...), name...)
}

func parseAnswer(b []byte) (n nonce, name string, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(answerMagic))
	if !ok || len(rest) <= len(n) {
		return n, "", errMessage
	}
	name = string(rest[len(n):])
	if validName(name) != nil {
		return n, "", errMessage
	}
	return nonce(rest[:len(n)]), name, nil
}

// validName refuses names that would not fit, or would spoil a terminal.
func validName(name string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		return errors.New("a name has 1 to 64 bytes of UTF-8")
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return errors.New("a name has no control characters")
		}
	}
	return nil
}
