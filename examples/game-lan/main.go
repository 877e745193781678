package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"time"
)

const (
	port  = 47777
	usage = "usage: game-lan [-interface mesh0] serve NAME\n       game-lan [-interface mesh0] [-wait 1s] list"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "game-lan:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("game-lan", flag.ContinueOnError)
	iface := f.String("interface", "", "the one to use (default: all that are up)")
	wait := f.Duration("wait", time.Second, "how long to listen for answers")
	if err := f.Parse(args); err != nil {
		return err
	}
	links, err := interfaces(*iface)
	if err != nil {
		return err
	}
	switch {
	case f.NArg() == 2 && f.Arg(0) == "serve":
		return serve(ctx, links, f.Arg(1), out)
	case f.NArg() == 1 && f.Arg(0) == "list":
		ctx, cancel := context.WithTimeout(ctx, *wait)
		defer cancel()
		return list(ctx, links, out)
	}
	return errors.New(usage)
}

// interfaces are those that broadcasts and multicasts are sent on: the named one, or all that are up.
func interfaces(name string) ([]net.Interface, error) {
	if name != "" {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("interface %q: %w", name, err)
		}
		return []net.Interface{*link}, nil
	}
	all, err := net.Interfaces()
	return slices.DeleteFunc(all, func(i net.Interface) bool {
		const needed = net.FlagUp | net.FlagBroadcast | net.FlagMulticast
		return i.Flags&needed != needed
	}), err
}

// serve answers questions until ctx ends.
func serve(ctx context.Context, links []net.Interface, name string, out io.Writer) error {
	if err := validName(name); err != nil {
		return err
	}
	sockets, err := open(links, port)
	if err != nil {
		return err
	}
	defer sockets.Close()
	stop := context.AfterFunc(ctx, sockets.Close)
	defer stop()
	fmt.Fprintf(out, "serving %s\n", name)
	return sockets.receive(func(b []byte, from net.Addr, answer func([]byte) error) {
		if n, err := parseAsk(b); err == nil {
			_ = answer(appendAnswer(nil, n, name)) // the client asks again
		}
	})
}

// list asks, again and again until ctx ends, and prints each server when it answers for the first time.
func list(ctx context.Context, links []net.Interface, out io.Writer) error {
	sockets, err := open(links, 0)
	if err != nil {
		return err
	}
	var n nonce
	rand.Read(n[:])
	go func() {
		defer sockets.Close()
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			sockets.askAll(appendAsk(nil, n))
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	seen := make(map[string]bool)
	return sockets.receive(func(b []byte, from net.Addr, _ func([]byte) error) {
		of, name, err := parseAnswer(b)
		if line := fmt.Sprintf("%s\t%v", name, from); err == nil && of == n && !seen[line] {
			seen[line] = true
			fmt.Fprintln(out, line)
		}
	})
}
