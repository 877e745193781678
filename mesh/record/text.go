package record

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// checkText refuses text that could do more than be read: control characters, line breaks, invisible and direction-changing
// characters (unicode.IsPrint knows none of them).
func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: %s of %d bytes", ErrInvalid, what, len(s))
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%w: %s with unprintable characters", ErrInvalid, what)
	}
	return nil
}

// printable returns what checkText accepts of s.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	for len(s) > limit {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
