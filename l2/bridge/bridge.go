package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Config says what is bridged.
type Config struct {
	Name string  // a bridge, or an interface to make a bridge for
	TAP  string  // is there already
	MAC  [6]byte // of the member: the bridge gets it
	Skip uint32  // a routing table that is left alone; 0: none

	// Note writes a Record down, before what it lists is done; an empty one when nothing
	// is left to undo.
	Note func(record []byte) error
}

// Record is what was changed on the host.
type Record struct {
	Boot   string         `json:"boot"` // of the kernel: no change outlives it
	Bridge string         `json:"bridge"`
	TAP    string         `json:"tap"`
	Skip   uint32         `json:"skip,omitempty"`   // a routing table that is another's
	MAC    string         `json:"mac,omitempty"`    // of the bridge, before; of one that was there
	Least  bool           `json:"least,omitempty"`  // that was the least of its ports', as one has that nobody gave one
	Port   string         `json:"port,omitempty"`   // the interface that a bridge was made for
	Addrs  [][]byte       `json:"addrs,omitempty"`  // of Port, as the kernel tells them
	Routes [][]byte       `json:"routes,omitempty"` // likewise by Port
	Set    []netip.Prefix `json:"set,omitempty"`    // the member's addresses, on the bridge
}

// made reports whether the bridge is one that was made for an interface.
func (r *Record) made() bool { return r.Port != "" }

func parseRecord(b []byte) (*Record, error) {
	r := &Record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read what was bridged: %w", err)
	}
	if r.Bridge == "" || r.TAP == "" {
		return nil, errors.New("read what was bridged: no names")
	}
	return r, nil
}

// Error is why something cannot be bridged.
type Error struct {
	Name   string // of the interface
	Err    error
	Remedy string
}

func (e *Error) Error() string { return fmt.Sprintf("bridge %q: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Problem is what keeps a bridge from being as it should, until somebody repairs it.
type Problem struct{ Code, Text, Remedy string }

const maxName = 15 // IFNAMSIZ without the end

// nameFor is the name of the bridge that is made beside a TAP.
func nameFor(tap string) string {
	name := "br-" + tap
	return name[:min(len(name), maxName)]
}

// validName also keeps a name from reaching another place in /proc/sys.
func validName(name string) bool {
	return name != "" && len(name) <= maxName && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/\:%`, r) })
}
