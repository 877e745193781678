package join

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"meshd/keys"
)

// ErrNoRequest says that no request that waits has these words.
var ErrNoRequest = errors.New("no waiting request has exactly these six words")

// Request is one that waits for an admin.
type Request struct {
	Words []string
	Name  string
	ID    keys.NodeID
	Since time.Time
	From  netip.AddrPort // as the introducer sees the joiner; may be zero
}

// Requests lists what waits for an admin, oldest first.
func (d *Desk) Requests(now time.Time) []Request {
	d.forget(now)
	var out []Request
	for _, p := range d.pending {
		if p.words != nil && !p.denied {
			out = append(out, p.request())
		}
	}
	slices.SortFunc(out, func(a, b Request) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return a.ID.Compare(b.ID)
	})
	return out
}

func (p *pending) request() Request {
	return Request{Words: slices.Clone(p.words), Name: p.name, ID: p.public.ID(), Since: p.since, From: p.from.At}
}

// Approve admits the request with exactly these words; no other handle is
// accepted. Without roles it becomes a member. The joiner hears of it when it
// asks next, or from Answers at once.
func (d *Desk) Approve(words string, roles keys.Roles, now time.Time) (Request, error) {
	p, err := d.find(words, now)
	if err != nil {
		return Request{}, fmt.Errorf("approve: %w", err)
	}
	if d.config.Revoked(p.public) {
		return Request{}, fmt.Errorf("approve: %s has been revoked", p.public.ID())
	}
	if _, err := d.issue(keys.Issue{Public: p.public, Name: p.name, Ref: p.ref, At: now}, roles); err != nil {
		return Request{}, fmt.Errorf("approve: %w", err)
	}
	delete(d.pending, p.public.ID())
	return p.request(), nil
}

// Deny refuses the request with exactly these words.
func (d *Desk) Deny(words string, now time.Time) (Request, error) {
	p, err := d.find(words, now)
	if err != nil {
		return Request{}, fmt.Errorf("deny: %w", err)
	}
	p.denied = true
	return p.request(), nil
}

// find looks for the one request with these words.
func (d *Desk) find(text string, now time.Time) (*pending, error) {
	d.forget(now)
	words := keys.ParseWords(text)
	if words == nil {
		return nil, fmt.Errorf("%w: want the six words that the joiner shows", ErrNoRequest)
	}
	var found *pending
	for _, p := range d.pending {
		if p.denied || !slices.Equal(p.words, words) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: two have them", ErrNoRequest)
		}
		found = p
	}
	if found == nil {
		return nil, ErrNoRequest
	}
	return found, nil
}

// Answers is what the joiner of a request that Approve or Deny has just decided
// can be told at once, without being asked.
func (d *Desk) Answers(joiner keys.NodeID, now time.Time) [][]byte {
	if p := d.pending[joiner]; p != nil && p.denied {
		return one(refuse(p.ref, CodeDenied))
	}
	for _, i := range slices.Backward(d.config.Log.Issues()) {
		if i.Public.ID() != joiner || !i.Invite.IsZero() {
			continue
		}
		if issue, ok := d.issued(i.Public, now); ok && issue.Ref == i.Ref {
			return d.grant(i.Ref, i)
		}
		return nil
	}
	return nil
}
