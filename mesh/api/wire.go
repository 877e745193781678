package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"meshd/keys"
)

const (
	// maxBody bounds a request.
	maxBody = 64 << 10
	// maxAnswer bounds what a client takes in: some thousand members with all their paths.
	maxAnswer = 64 << 20
	// maxName bounds a NAME; the longest DNS name has 253 bytes.
	maxName = 253
	// wordCount is how many words the two sides of an approval compare.
	wordCount = 6
	// maxUses and maxExpires bound the terms of an invite.
	maxUses    = 10000
	maxExpires = 366 * 24 * time.Hour
)

// The requests' bodies.
type (
	pingRequest struct {
		Name  string `json:"name"`
		Count int    `json:"count"`
	}
	inviteRequest struct {
		Uses           int      `json:"uses"`
		ExpiresSeconds float64  `json:"expires_seconds"`
		Roles          []string `json:"roles"`
	}
	wordsRequest struct {
		Words string `json:"words"`
	}
	revokeRequest struct {
		Name  string    `json:"name"`
		Since time.Time `json:"since,omitzero"`
	}
	roleRequest struct {
		Name  string   `json:"name"`
		Roles []string `json:"roles"`
	}
	leaveRequest struct {
		Force bool `json:"force"`
	}
	waitRequest struct {
		Peers          int     `json:"peers"`
		Peer           string  `json:"peer"`
		Direct         string  `json:"direct"`
		TimeoutSeconds float64 `json:"timeout_seconds"`
	}
)

// pingLine is one line of the answer to a ping: a reply, or the end with or without an error. An answer without its
// end was cut off.
type pingLine struct {
	Reply *PingReply `json:"reply,omitempty"`
	Done  bool       `json:"done,omitempty"`
	Error *Error     `json:"error,omitempty"`
}

// errorBody is the body of every answer that is not 2xx.
type errorBody struct {
	Error *Error `json:"error"`
}

// decodeStrict reads exactly one JSON value without unknown keys.
func decodeStrict(r io.Reader, v any) error {
	body, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if len(body) > maxBody {
		return fmt.Errorf("request has more than %d bytes", maxBody)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("read request: something follows the JSON")
	}
	return nil
}

// seconds turns a number of seconds from the wire into a duration within 0 and limit.
func seconds(s float64, limit time.Duration) (time.Duration, bool) {
	if !(s >= 0 && s <= limit.Seconds()) {
		return 0, false
	}
	return time.Duration(s * float64(time.Second)), true
}

// Check says what is wrong with the terms of an invite, or nil.
func (o InviteOptions) Check() error {
	const what = "invite"
	switch {
	case o.Uses < 1 || o.Uses > maxUses:
		return usage(what, fmt.Sprintf("uses is %d, and must be from 1 to %d", o.Uses, maxUses), "")
	case o.Expires <= 0 || o.Expires > maxExpires:
		return usage(what, fmt.Sprintf("it would expire after %v, and must after at least a moment and at most %d days", o.Expires, maxExpires/(24*time.Hour)), "")
	}
	if _, err := keys.ParseRoles(o.Roles...); err != nil {
		return usage(what, err.Error(), "")
	}
	return nil
}

// Check says what is wrong with a condition, or nil.
func (w WaitSpec) Check() error {
	const what = "wait"
	switch {
	case w.Peers < 0:
		return usage(what, fmt.Sprintf("peers is %d, and cannot be negative", w.Peers), "")
	case w.Timeout < 0:
		return usage(what, fmt.Sprintf("the timeout is %v, and cannot be negative", w.Timeout), "")
	}
	for _, name := range []string{w.Peer, w.Direct} {
		if name == "" {
			continue
		}
		if err := CheckName(name); err != nil {
			return err
		}
	}
	return nil
}

// CheckRoles says what is wrong with a member's roles, or nil.
func CheckRoles(roles []string) error {
	if len(roles) == 0 {
		return usage("role", "no role is given", "member is the least")
	}
	if _, err := keys.ParseRoles(roles...); err != nil {
		return usage("role", err.Error(), "")
	}
	return nil
}

// CheckName says what is wrong with a NAME, or nil. It does not look whether anyone has it.
func CheckName(name string) error {
	const what = "find member"
	switch {
	case name == "":
		return usage(what, "the name is empty", "")
	case len(name) > maxName:
		return usage(what, fmt.Sprintf("the name has more than %d bytes", maxName), "")
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }):
		return usage(what, fmt.Sprintf("the name %q has characters that no name has", name), "")
	}
	return nil
}

// Words brings the words of a request into their one form: lower case, single spaces. They may come as one argument or
// several, with spaces, commas or hyphens between them.
func Words(args ...string) (string, error) {
	const what = "read words"
	list := strings.FieldsFunc(strings.ToLower(strings.Join(args, " ")), func(r rune) bool {
		return r == ' ' || r == '-' || r == ',' || r == '\t' || r == '\n' || r == '\r'
	})
	if len(list) != wordCount {
		return "", usage(what, fmt.Sprintf("there are %d words, and must be %d", len(list), wordCount), "meshd requests lists them")
	}
	for _, w := range list {
		if len(w) > 16 || strings.ContainsFunc(w, func(r rune) bool { return r < 'a' || r > 'z' }) {
			return "", usage(what, fmt.Sprintf("%q is not such a word", w), "meshd requests lists them")
		}
	}
	return strings.Join(list, " "), nil
}

// usage is an error of wrong usage.
func usage(what, why, remedy string) error {
	return &Error{Code: CodeUsage, What: what, Why: why, Remedy: remedy}
}

// Canonical puts a status into the form that users rely on: peers sorted by name and then id, times in UTC, empty lists and not null.
func (s *Status) Canonical() {
	slices.SortFunc(s.Peers, func(a, b Peer) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	s.Network.Prefixes = list(s.Network.Prefixes)
	s.Self.CertificateExpires = utc(s.Self.CertificateExpires)
	s.Self.Roles, s.Self.Addresses, s.Self.Endpoints = list(s.Self.Roles), list(s.Self.Addresses), list(s.Self.Endpoints)
	if s.Self.NAT.Mapping == "" {
		s.Self.NAT.Mapping = "unknown"
	}
	s.Peers, s.Relaying, s.Health = list(s.Peers), list(s.Relaying), list(s.Health)
	for i := range s.Peers {
		s.Peers[i].canonical()
	}
}

func (p *Peer) canonical() {
	p.Roles, p.Addresses, p.Via, p.Paths = list(p.Roles), list(p.Addresses), list(p.Via), list(p.Paths)
	for i := range p.Paths {
		p.Paths[i].Via = list(p.Paths[i].Via)
	}
	p.LastSeen, p.LastHandshake = utc(p.LastSeen), utc(p.LastHandshake)
}

// list makes an empty list of none.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// utc is t in UTC to the millisecond; the zero time stays.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}
