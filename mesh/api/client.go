package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"time"
)

// callTimeout is how long a daemon that lives may take to answer a request that does not wait for something.
const callTimeout = 20 * time.Second

// Client asks the daemon at a control socket. Its methods are those of [Node]; each of its errors has an [*Error] in its chain.
type Client struct {
	socket string
	http   *http.Client
}

var _ Node = (*Client)(nil)

// NewClient is a client for the socket. It does not connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: dial, DisableKeepAlives: true, Proxy: nil, MaxResponseHeaderBytes: maxHeader,
	}}}
}

// Status asks how things are.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	s := new(Status)
	if err := c.call(ctx, "status", nil, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Hosts asks for the broadcast domain.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	var h []Host
	err := c.call(ctx, "hosts", nil, &h)
	return h, err
}

// Requests asks who waits for approval.
func (c *Client) Requests(ctx context.Context) ([]Request, error) {
	var r []Request
	err := c.call(ctx, "requests", nil, &r)
	return r, err
}

// Invite asks for an invite and returns its text.
func (c *Client) Invite(ctx context.Context, o InviteOptions) (string, error) {
	i, err := c.NewInvite(ctx, o)
	return i.Invite, err
}

// NewInvite asks for an invite and returns it with its terms.
func (c *Client) NewInvite(ctx context.Context, o InviteOptions) (Invite, error) {
	var i Invite
	err := c.call(ctx, "invite", inviteRequest{Uses: o.Uses, ExpiresSeconds: o.Expires.Seconds(), Roles: o.Roles}, &i)
	return i, err
}

// Approve admits who shows these words.
func (c *Client) Approve(ctx context.Context, words string) (Request, error) {
	var r Request
	err := c.call(ctx, "approve", wordsRequest{Words: words}, &r)
	return r, err
}

// Deny refuses who shows these words.
func (c *Client) Deny(ctx context.Context, words string) error {
	return c.call(ctx, "deny", wordsRequest{Words: words}, nil)
}

// Share asks what is relayed, and changes what is not nil.
func (c *Client) Share(ctx context.Context, change ShareChange) (*Share, error) {
	var in any
	if change != (ShareChange{}) {
		in = change
	}
	s := new(Share)
	if err := c.call(ctx, "share", in, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Down asks the daemon to end, and returns as soon as it has begun to.
func (c *Client) Down(ctx context.Context) error {
	return c.call(ctx, "down", struct{}{}, nil)
}

// Wait waits until a condition holds.
func (c *Client) Wait(ctx context.Context, w WaitSpec) error {
	resp, err := c.send(ctx, "wait", waitRequest{Peers: w.Peers, Peer: w.Peer, Direct: w.Direct, TimeoutSeconds: w.Timeout.Seconds()})
	if err != nil {
		return err
	}
	return c.receive(ctx, "wait", resp, nil)
}

// Ping pings a member and calls each with every reply.
func (c *Client) Ping(ctx context.Context, name string, count int, each func(PingReply)) error {
	resp, err := c.send(ctx, "ping", pingRequest{Name: name, Count: count})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.receive(ctx, "ping", resp, nil)
	}
	d := json.NewDecoder(resp.Body)
	for {
		var line pingLine
		if err := d.Decode(&line); err != nil {
			return c.fault(ctx, "ping", err)
		}
		switch {
		case line.Error != nil:
			return line.Error
		case line.Done:
			return nil
		case line.Reply != nil:
			each(*line.Reply)
		}
	}
}

// Alive reports whether a daemon accepts connections at the socket.
func (c *Client) Alive(ctx context.Context) (bool, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err == nil {
		conn.Close()
		return true, nil
	}
	if err = c.fault(ctx, "connect", err); errors.Is(err, ErrNoDaemon) {
		return false, nil
	}
	return false, err
}

// call does a request that is answered at once. Without a body it is a GET.
func (c *Client) call(ctx context.Context, op string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("%w: it accepts, and is silent for %v", ErrNoDaemon, callTimeout))
	defer cancel()
	resp, err := c.send(ctx, op, in)
	if err != nil {
		return err
	}
	return c.receive(ctx, op, resp, out)
}

// send sends a request and returns the answer's beginning.
func (c *Client) send(ctx context.Context, op string, in any) (*http.Response, error) {
	method, body := http.MethodGet, []byte(nil)
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, c.fault(ctx, op, err)
		}
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+"/v1/"+op, bytes.NewReader(body))
	if err != nil {
		return nil, c.fault(ctx, op, err)
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.fault(ctx, op, err)
	}
	return resp, nil
}

// receive reads an answer: out, or the error that it carries.
func (c *Client) receive(ctx context.Context, op string, resp *http.Response, out any) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.fault(ctx, op, err)
	}
	if resp.StatusCode != http.StatusOK {
		var e errorBody
		if json.Unmarshal(body, &e) != nil || e.Error == nil {
			return c.fault(ctx, op, fmt.Errorf("the daemon answers %s", resp.Status))
		}
		return e.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return c.fault(ctx, op, fmt.Errorf("read answer: %w", err))
	}
	return nil
}

// fault says what is wrong between client and daemon.
func (c *Client) fault(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx) // what the connection says then is a matter of chance
	}
	e := &Error{Code: CodeFailed, What: op, Why: err.Error(), Err: err}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Why = CodeDenied, fmt.Sprintf("permission denied at %s", c.socket)
		e.Remedy = "run it as root, or as a member of the group meshd"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errConnRefused):
		e.Code, e.Why, e.Err = CodeNoDaemon, fmt.Sprintf("no daemon answers at %s", c.socket), ErrNoDaemon
		e.Remedy = "start one with meshd up, or name another with --socket or --state"
	case errors.Is(err, ErrNoDaemon):
		e.Code = CodeNoDaemon
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errConnReset), errors.Is(err, errBrokenPipe):
		e.Code, e.Why, e.Err = CodeNoDaemon, "the daemon ended the connection", ErrNoDaemon
	}
	return e
}
