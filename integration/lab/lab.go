//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a lab.
type Options struct {
	Name string                           // appears in log lines and in the environment of what runs in the lab; "lab" if empty
	Logf func(format string, args ...any) // may be nil
}

// ErrClosed is returned by what is asked of a lab after Close.
var ErrClosed = errors.New("lab: closed")

// carrierTimeout bounds the wait for new links. The kernel activates one within a second.
const carrierTimeout = 10 * time.Second

// Lab is a set of isolated internets. Its methods, and those of what it makes, may be called from any goroutine.
type Lab struct {
	opts Options
	mark string // what a process of the lab carries in its environment
	home int    // network namespace of this process, to come back to
	ids  atomic.Int64

	mu      sync.Mutex // guards what follows, and every change of the topology
	err     error      // the first error of building
	spaces  []*namespace
	closers []io.Closer
	pending []*end // links that have been made, but may not carry yet
	wire    *namespace
}

// New makes an empty lab.
func New(opts Options) (*Lab, error) {
	if opts.Name == "" {
		opts.Name = "lab"
	}
	if opts.Logf == nil {
		opts.Logf = func(string, ...any) {}
	}
	if err := Supported(); err != nil {
		return nil, err
	}
	home, err := openThreadNet()
	if err != nil {
		return nil, err
	}
	mark, err := newMark(opts.Name)
	if err != nil {
		closeFD(home)
		return nil, err
	}
	return &Lab{opts: opts, mark: mark, home: home}, nil
}

// Close ends every process in the lab and removes all of it. It is safe to call it twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.err, ErrClosed) {
		return nil
	}
	l.err = ErrClosed
	err := killInside(l.spaces, l.mark)
	for i := len(l.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, l.closers[i].Close())
	}
	for _, ns := range l.spaces {
		ns.close()
	}
	closeFD(l.home)
	l.spaces, l.closers, l.pending = nil, nil, nil
	return err
}

// Ready waits until every link carries frames, and returns the first error of building.
// Command and Do wait by themselves.
func (l *Lab) Ready(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready(ctx)
}

// ready is Ready with the lock held. A link is ready when the kernel has given it a queue: what is sent before is dropped
// silently.
func (l *Lab) ready(ctx context.Context) error {
	if l.err != nil || len(l.pending) == 0 {
		return l.err
	}
	err := poll(ctx, func() bool {
		for len(l.pending) > 0 && l.pending[0].carries() {
			l.pending = l.pending[1:]
		}
		return len(l.pending) == 0
	})
	if err != nil {
		e := l.pending[0]
		return fmt.Errorf("lab: wait for link %s of %s: %w", e.name, e.ns.name, err)
	}
	l.pending = nil
	return nil
}

// poll waits for a condition that the kernel brings about.
func poll(ctx context.Context, holds func() bool) error {
	if holds() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, carrierTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if holds() {
				return nil
			}
		}
	}
}

// build runs one step of building under the lock, unless an earlier one failed. Its error is kept.
func (l *Lab) build(what string, step func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	if err := step(); err != nil {
		l.err = fmt.Errorf("lab: build %s: %w", what, err)
		l.opts.Logf("%v", l.err)
	}
}

// change runs a change of what is built under the lock.
func (l *Lab) change(what string, step func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if err := step(); err != nil {
		return fmt.Errorf("lab: %s: %w", what, err)
	}
	l.opts.Logf("%s", what)
	return nil
}

// own makes Close close c as well.
func (l *Lab) own(c io.Closer) { l.closers = append(l.closers, c) }

// await makes ready wait for these ends, as they are now.
func (l *Lab) await(ends ...end) {
	l.forget(ends...)
	for _, e := range ends {
		l.pending = append(l.pending, &e)
	}
}

// forget makes ready not wait for them.
func (l *Lab) forget(ends ...end) {
	l.pending = slices.DeleteFunc(l.pending, func(p *end) bool {
		return slices.ContainsFunc(ends, func(e end) bool { return e.ns == p.ns && e.index == p.index })
	})
}

// id numbers interfaces, so that a name is free in whatever namespace the interface is moved to.
func (l *Lab) id() int64 { return l.ids.Add(1) }
