package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"meshd/keys"
	"meshd/l2/plug"
	"meshd/mesh"
	"meshd/mesh/api"
	"meshd/mesh/doctor"
)

// What up and down need of package mesh. This file is the only one that knows it.

// defaultPort is the UDP port of a node that was not told another, defaultTAP its interface.
const (
	defaultPort = mesh.DefaultPort
	defaultTAP  = mesh.DefaultTAP
)

// node is the seam between the commands and package mesh.
type node interface {
	// Run is the life of a node. It returns nil when ctx ended or somebody asked for the end.
	Run(ctx context.Context, c nodeConfig) error
	// CleanUp removes what a node that was killed has left on this host.
	CleanUp(stateDir string) error
	// Netcheck measures the network without a node.
	Netcheck(ctx context.Context, stateDir string, servers []string) (*api.Netcheck, error)
	// Examine makes doctor's checks.
	Examine(ctx context.Context, c doctor.Config) []api.Check
	// Forget removes the state of a node that does not run.
	Forget(stateDir string) error
}

// nodeConfig is what up tells the node.
type nodeConfig struct {
	StateDir, SocketPath string
	Name                 string
	Join                 []string
	Resume               bool
	Listen, ListenTLS    netip.AddrPort
	Terminal             bool // ssh may ask the user
	Advertise, STUN      []string
	NoPortmap            bool
	Share                api.ShareChange
	TAP                  string
	NoTAP                bool
	Plugs                []plug.Spec
	Bridge               string
	MTU                  int
	Prefixes             []netip.Prefix
	Gateway              bool
	DefaultRoute         mesh.DefaultRoute
	RouterDNS            []netip.Addr
	DHCP4                netip.Prefix
	RouterPreference     string
	Logger               *slog.Logger
	Progress             func(progress)
	KeepTAP              func() bool
}

// progress is a step that the user wants to see.
type progress struct {
	kind  mesh.EventKind
	text  string
	words []string
}

// realNode is package mesh.
type realNode struct{}

// collectAt is by how much of what is in use memory may grow, in percent, until it is collected. Frames allocate nothing, so
// that collecting twice as often as Go does by itself costs little, and small hosts have less memory than time.
const collectAt = 50

// Run runs a node.
func (realNode) Run(ctx context.Context, c nodeConfig) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	return mesh.Run(ctx, mesh.Config{
		StateDir: c.StateDir, SocketPath: c.SocketPath, Version: version(), Name: c.Name, Join: c.Join, Resume: c.Resume,
		Gateway: c.Gateway, DefaultRoute: c.DefaultRoute, RouterDNS: c.RouterDNS, DHCP4: c.DHCP4, RouterPreference: c.RouterPreference,
		Listen: c.Listen, ListenTLS: c.ListenTLS, Terminal: c.Terminal, Advertise: c.Advertise, TAP: c.TAP, NoTAP: c.NoTAP, Plugs: c.Plugs, Bridge: c.Bridge, MTU: c.MTU, Prefixes: c.Prefixes, STUN: c.STUN,
		NoPortmap: c.NoPortmap,
		Share:     c.Share,
		Logger:    c.Logger, KeepTAP: c.KeepTAP,
		Progress: func(e mesh.Event) { c.Progress(progress{kind: e.Kind, text: e.Text, words: e.Words}) },
	})
}

// CleanUp removes what a killed node has left.
func (realNode) CleanUp(stateDir string) error { return mesh.CleanUp(stateDir) }

// Netcheck measures the network in front of this host.
func (realNode) Netcheck(ctx context.Context, stateDir string, servers []string) (*api.Netcheck, error) {
	return mesh.Netcheck(ctx, stateDir, servers)
}

// checkSSH says what is wrong with ssh://[USER@]HOST[:PORT].
func checkSSH(text string) error { return mesh.CheckSSH(text) }

// Examine looks at this host, its network and the node.
func (realNode) Examine(ctx context.Context, c doctor.Config) []api.Check {
	return doctor.Examine(ctx, c)
}

// Forget removes a node's state.
func (realNode) Forget(stateDir string) error { return mesh.Forget(stateDir) }

// isInvite tells an invite from a host.
func isInvite(s string) bool { return keys.IsInvite(s) }

// inviteAt is where in an argument an invite begins, or -1.
func inviteAt(arg string) int {
	for i := range len(arg) {
		if keys.IsInvite(arg[i:]) {
			return i
		}
	}
	return -1
}

// isMalformed reports whether a text is not a whole invite.
func isMalformed(text string, now time.Time) bool {
	_, err := keys.ParseInvite(text, now)
	return errors.Is(err, keys.ErrMalformed)
}

// checkInvite says what is wrong with an invite. What is wrong with a paper is not wrong usage. Whether it has expired is
// for its signer to say: the clock here may be wrong.
func checkInvite(text string, now time.Time) error {
	if _, err := keys.ParseInvite(text, now); err != nil && !errors.Is(err, keys.ErrExpired) {
		return &api.Error{
			Code: api.CodeFailed, What: "--join", Why: "invite: " + err.Error(), Err: err,
			Remedy: "ask for a new one: meshd invite on a member that may admit",
		}
	}
	return nil
}
