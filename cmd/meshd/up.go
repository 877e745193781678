package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"meshd/mesh"
)

// newUp is `meshd up`.
func newUp(a *app) *cobra.Command {
	f := &upFlags{}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run the node: found a network, join one, or resume",
		Long: `Runs the node until it is told to stop.

Without state and without --join it founds a network and prints the one line that others type. With --join it joins:
by an invite at once, else after an admin has compared six words and approved. With state it resumes.
Once the TAP is up, a member is reached when joining, and with --bridge the port has listened for who else forwards
for that LAN, it prints a line that begins with "ready".

Ctrl-C ends it like meshd down. SIGTERM ends it too but keeps the TAP, so that a restart does not cut connections.`,
		Example: "  meshd up\n  meshd up --join home.example\n  ssh home meshd invite | meshd up --join -",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.up(cmd, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "", "name in the network (default: the host's)")
	fl.StringArrayVar(&f.join, "join", nil, "HOST[:PORT], ssh://user@host, an invite, or - to read from stdin (repeatable)")
	fl.BoolVar(&f.resume, "resume", false, "never found a network")
	fl.BoolVar(&f.detach, "detach", false, "go on in the background once ready")
	fl.StringVar(&f.listen, "listen", "", fmt.Sprintf("ADDR:PORT of the underlay (default: all addresses, port %d)", defaultPort))
	fl.StringVar(&f.listenTLS, "listen-tls", "", "ADDR:PORT at which members without UDP are taken, over TLS (such as :443)")
	fl.StringArrayVar(&f.advertise, "advertise", nil, "HOST:PORT at which others reach this node (repeatable)")
	fl.StringVar(&f.tap, "tap", defaultTAP, "name of the TAP")
	fl.BoolVar(&f.noTAP, "no-tap", false, "have no TAP")
	fl.StringArrayVar(&f.plug, "plug", nil, "vde:DIR, stream:PATH or dgram:PATH that virtual machines plug into (repeatable)")
	fl.StringVar(&f.bridge, "bridge", "", "bridge that the TAP is put into, or interface that one is made for, so that its LAN is in the mesh")
	fl.IntVar(&f.mtu, "mtu", 0, "MTU of the segment, for its founder (default 1500)")
	fl.StringArrayVar(&f.prefix, "prefix", nil, "IPv6 prefix P/64 of the segment, for its founder (default: an own ULA)")
	fl.BoolVar(&f.gateway, "gateway", false, "route between the network's prefixes and this host's IPv6 uplink (needs the role router)")
	fl.StringVar(&f.defaultRoute, "default-route", "auto", "auto, always or never: send this host's own IPv6 through the mesh (auto: while it has no other way)")
	fl.StringArrayVar(&f.raDNS, "ra-dns", nil, "ADDR of a name server that hosts on the segment are told of, IPv4 by --dhcp4 (repeatable)")
	fl.StringVar(&f.raPreference, "ra-preference", "medium", "low, medium or high: which of several routers hosts prefer (RFC 4191)")
	fl.StringVar(&f.dhcp4, "dhcp4", "", "IPv4 subnet such as 192.0.2.0/24: hand out its addresses on the segment, and route it with NAT (needs the role dhcp)")
	fl.StringArrayVar(&f.stun, "stun", nil, "HOST:PORT of a STUN server besides members (repeatable)")
	fl.BoolVar(&f.noPortmap, "no-portmap", false, "do not ask the router for a port")
	fl.StringVar(&f.relay, "relay", "", "on or off: relay between members that do not reach each other (default: as before, at first on)")
	fl.StringVar(&f.shareRate, "share-rate", "", "most that is relayed, such as 10mbit; 0: no fixed limit (default: as before)")
	fl.StringVar(&f.shareVolume, "share-volume", "", "most that is relayed in a month, such as 100GB; 0: no limit (default: as before)")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json")
	return cmd
}

// up checks the flags and runs the node, or has a background process run it.
func (a *app) up(cmd *cobra.Command, f *upFlags) error {
	if a.live && !changed(cmd.Flags(), "log-level") {
		f.logLevel = "warn" // the terminal shows progress
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = ""
	}
	c, err := f.config(upInput{hostname: hostname, stdin: a.stdin, now: a.now()})
	if err != nil {
		return err
	}
	if f.detach {
		return a.detach(cmd.Context(), cmd.Flags(), c.Join)
	}
	child := detachedChild(a.getenv)
	handler, err := f.logHandler(a.stderr)
	if err != nil {
		return err
	}
	c.Logger = slog.New(handler)
	c.StateDir, c.SocketPath = a.flags.state, a.flags.socket
	c.Terminal = a.live && !child
	ctx, e := a.untilEnd(cmd.Context())
	defer e.stop()
	n := newNotifier(a.getenv)
	s := &screen{app: a, notify: n}
	if child {
		s.onReady = func() { leaveTerminal(c.StateDir) }
	}
	c.Progress, c.KeepTAP = s.show, e.keepTAP
	return a.runNode(ctx, c, n)
}

// runNode runs the node and, beside it, what systemd wants to hear.
func (a *app) runNode(ctx context.Context, c nodeConfig, n *notifier) error {
	inner, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { n.run(inner, a.client()) })
	beside.Go(func() {
		<-inner.Done()
		n.send("STOPPING=1")
	})
	err := a.node.Run(ctx, c)
	cancel()
	beside.Wait()
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return explain(err, c)
}

// screen shows progress. Its methods are called from one goroutine at a time.
type screen struct {
	app     *app
	notify  *notifier
	onReady func()
}

// show prints one step.
func (s *screen) show(p progress) {
	st, text := s.app.style, clean(p.text)
	switch p.kind {
	case mesh.Founded:
		s.app.printf("on the others, type:\n  %s\n", st.paint(bold, text))
	case mesh.WaitingForApproval:
		words := clean(strings.Join(p.words, " "))
		s.app.printf("waiting for approval: %s\n", st.paint(bold, words))
		s.app.printf("an admin compares these words and runs: meshd approve %s\n", words)
		s.notify.send("STATUS=waiting for approval of: " + words)
	case mesh.Warning:
		s.app.printf("%s %s\n", st.paint(yellow, "warning:"), text)
	case mesh.Ready:
		text = strings.TrimPrefix(strings.TrimPrefix(text, "ready"), " ")
		s.app.printf("%s %s\n", st.paint(green, "ready"), text)
		s.notify.ready("STATUS=ready " + text)
		if s.onReady != nil {
			s.onReady()
		}
	default:
		s.app.printf("%s\n", text)
		s.notify.send("STATUS=" + text)
	}
}
