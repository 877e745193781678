package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"meshd/keys"
)

func (s *server) unknown(_ http.ResponseWriter, r *http.Request) error {
	return &Error{
		Code: CodeUnsupported, What: r.Method + " " + r.URL.Path, Why: "the daemon does not know this request",
		Remedy: "the daemon may be of another version; restart it",
	}
}

func (s *server) status(w http.ResponseWriter, r *http.Request) error {
	longRequest(w)
	st, err := s.node.Status(r.Context())
	if err != nil {
		return err
	}
	st.Canonical()
	s.answer(w, http.StatusOK, st)
	return nil
}

func (s *server) hosts(w http.ResponseWriter, r *http.Request) error {
	longRequest(w)
	hosts, err := s.node.Hosts(r.Context())
	if err != nil {
		return err
	}
	for i := range hosts {
		hosts[i].Addresses = list(hosts[i].Addresses)
	}
	s.answer(w, http.StatusOK, list(hosts))
	return nil
}

func (s *server) requests(w http.ResponseWriter, r *http.Request) error {
	longRequest(w)
	reqs, err := s.node.Requests(r.Context())
	if err != nil {
		return err
	}
	for i := range reqs {
		reqs[i].Asked, reqs[i].Expires = utc(reqs[i].Asked), utc(reqs[i].Expires)
	}
	s.answer(w, http.StatusOK, list(reqs))
	return nil
}

func (s *server) invite(w http.ResponseWriter, r *http.Request) error {
	var q inviteRequest
	if err := body(w, r, &q); err != nil {
		return err
	}
	expires, ok := seconds(q.ExpiresSeconds, maxExpires)
	if !ok {
		expires = -1
	}
	o := InviteOptions{Uses: q.Uses, Expires: expires, Roles: q.Roles}
	if err := o.Check(); err != nil {
		return err
	}
	text, err := s.node.Invite(r.Context(), o)
	if err != nil {
		return err
	}
	roles, err := keys.ParseRoles(o.Roles...)
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, Invite{Invite: text, Uses: o.Uses, Roles: roles, Expires: utc(time.Now().Add(o.Expires))})
	return nil
}

func (s *server) approve(w http.ResponseWriter, r *http.Request) error {
	words, err := readWords(w, r)
	if err != nil {
		return err
	}
	req, err := s.node.Approve(r.Context(), words)
	if err != nil {
		return err
	}
	req.Asked, req.Expires = utc(req.Asked), utc(req.Expires)
	s.answer(w, http.StatusOK, req)
	return nil
}

func (s *server) deny(w http.ResponseWriter, r *http.Request) error {
	words, err := readWords(w, r)
	if err != nil {
		return err
	}
	if err := s.node.Deny(r.Context(), words); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, struct{}{})
	return nil
}

func (s *server) share(w http.ResponseWriter, r *http.Request) error {
	longRequest(w)
	return s.answerShare(w, r, ShareChange{})
}

func (s *server) changeShare(w http.ResponseWriter, r *http.Request) error {
	var q ShareChange
	if err := body(w, r, &q); err != nil {
		return err
	}
	return s.answerShare(w, r, q)
}

func (s *server) answerShare(w http.ResponseWriter, r *http.Request, change ShareChange) error {
	sh, err := s.node.Share(r.Context(), change)
	if err != nil {
		return err
	}
	sh.For, sh.By = list(sh.For), list(sh.By)
	s.answer(w, http.StatusOK, sh)
	return nil
}

func readWords(w http.ResponseWriter, r *http.Request) (string, error) {
	var q wordsRequest
	if err := body(w, r, &q); err != nil {
		return "", err
	}
	return Words(q.Words)
}

func (s *server) down(w http.ResponseWriter, r *http.Request) error {
	var q struct{}
	if err := body(w, r, &q); err != nil {
		return err
	}
	if err := s.node.Down(r.Context()); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, struct{}{})
	return nil
}

func (s *server) wait(w http.ResponseWriter, r *http.Request) error {
	var q waitRequest
	if err := body(w, r, &q); err != nil {
		return err
	}
	timeout, ok := seconds(q.TimeoutSeconds, math.MaxInt64/2)
	if !ok {
		timeout = -1
	}
	spec := WaitSpec{Peers: q.Peers, Peer: q.Peer, Direct: q.Direct, Timeout: timeout}
	if err := spec.Check(); err != nil {
		return err
	}
	ctx := r.Context()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	err := s.node.Wait(ctx, spec)
	if errors.Is(err, context.DeadlineExceeded) && r.Context().Err() == nil {
		return s.timedOut(r.Context(), spec)
	}
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, struct{}{})
	return nil
}

// timedOut says what a wait that ran out was still missing.
func (s *server) timedOut(ctx context.Context, w WaitSpec) error {
	why := fmt.Sprintf("not after %v", w.Timeout)
	if st, err := s.node.Status(ctx); err == nil {
		if missing := w.missing(st); missing != "" {
			why += ": " + missing
		}
	}
	return &Error{Code: CodeNotConnected, What: "wait", Why: why, Remedy: "meshd status shows how things are"}
}

// missing says in words what of the condition does not hold.
func (w WaitSpec) missing(st *Status) string {
	var all []string
	if !st.Self.Ready {
		all = append(all, "the node is not ready")
	}
	alive := 0
	for _, p := range st.Peers {
		if p.State.Alive() {
			alive++
		}
	}
	if alive < w.Peers {
		all = append(all, fmt.Sprintf("%d of %d members are alive", alive, w.Peers))
	}
	for _, name := range []string{w.Peer, w.Direct} {
		if name == "" {
			continue
		}
		if i, err := Resolve(name, peerIDs(st.Peers)); err != nil {
			all = append(all, fmt.Sprintf("no member is called %q", name))
		} else if st.Peers[i].State != StateDirect {
			all = append(all, fmt.Sprintf("%q is %s", st.Peers[i].Name, st.Peers[i].State))
		}
	}
	return strings.Join(all, ", ")
}

// ping streams the replies, one JSON line each.
func (s *server) ping(w http.ResponseWriter, r *http.Request) error {
	var q pingRequest
	if err := body(w, r, &q); err != nil {
		return err
	}
	if err := CheckName(q.Name); err != nil {
		return err
	}
	if q.Count < 0 {
		return usage("ping", fmt.Sprintf("the count is %d, and cannot be negative", q.Count), "")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	enc := json.NewEncoder(w)
	rc := http.NewResponseController(w)
	started := false
	write := func(line pingLine) {
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if enc.Encode(line) != nil || rc.Flush() != nil {
			cancel()
		}
	}
	err := s.node.Ping(ctx, q.Name, q.Count, func(p PingReply) {
		p.Via = list(p.Via)
		write(pingLine{Reply: &p})
	})
	if err != nil && !started {
		return err
	}
	end := pingLine{Done: true}
	if err != nil {
		end.Error = asError("ping", err)
	}
	write(end)
	return nil
}
