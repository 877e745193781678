package main

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// ender ends the node on a signal, and knows afterwards whether the TAP may stay.
type ender struct {
	keep   atomic.Bool
	cancel context.CancelFunc
	ch     chan os.Signal
	done   chan struct{}
}

// untilEnd is a context that ends with the first SIGINT, SIGTERM or SIGHUP. A second one ends the process at once.
func (a *app) untilEnd(ctx context.Context) (context.Context, *ender) {
	ctx, cancel := context.WithCancel(ctx)
	e := &ender{cancel: cancel, ch: make(chan os.Signal, 1), done: make(chan struct{})}
	if !a.signals {
		close(e.done)
		return ctx, e
	}
	wanted := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		wanted = append(wanted, syscall.SIGHUP)
	}
	signal.Notify(e.ch, wanted...)
	go func() {
		defer close(e.done)
		select {
		case s := <-e.ch:
			e.keep.Store(s == syscall.SIGTERM)
			signal.Stop(e.ch)
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, e
}

// keepTAP reports whether the end is by SIGTERM: somebody will start the node again.
func (e *ender) keepTAP() bool { return e.keep.Load() }

// stop gives the signals back.
func (e *ender) stop() {
	e.cancel()
	<-e.done
	signal.Stop(e.ch)
}

// interruptible is a context that ends with SIGINT or SIGTERM, for commands that go on until then.
func (a *app) interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	if !a.signals {
		return context.WithCancel(ctx)
	}
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}
