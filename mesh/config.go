package mesh

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"meshd/l2"
	"meshd/l2/plug"
	"meshd/mesh/api"
	"meshd/nat-traversal"
	"meshd/peer/stream"
	"meshd/peer/udp"
)

// DefaultPort is the UDP port of a node that was not told another.
const DefaultPort = 51830

// DefaultTAP is the name of the TAP of a node that was not told another.
const DefaultTAP = "mesh0"

// DefaultMTU is a segment's MTU unless its founder says otherwise.
const DefaultMTU = 1500

// Config is what a node is told by its operator.
type Config struct {
	StateDir   string
	SocketPath string
	Version    string          // shown in status and in records
	Name       string          // as wanted in the network
	Join       []string        // entry points: HOST[:PORT], ssh://[USER@]HOST[:PORT] or an invite
	Resume     bool            // never found a network
	Listen     netip.AddrPort  // zero address: all; port 0: any
	ListenTLS  netip.AddrPort  // where streams over TLS are taken; invalid: nowhere
	Proxy      stream.ProxyFor // which proxies streams over TLS go through; nil: the environment's
	Terminal   bool            // ssh may ask the user
	Advertise  []string        // HOST:PORT at which others reach us
	TAP        string
	NoTAP      bool
	Plugs      []plug.Spec    // sockets that virtual machines plug into
	Bridge     string         // a bridge that the TAP is put into, or an interface that one is made for; "": none
	NoUAPI     bool           // do not offer WireGuard's userspace API
	MTU        int            // of the segment, when founding; 0: the default
	Prefixes   []netip.Prefix // of the segment, when founding; none: a ULA
	Gateway    bool           // route between the segment and this host's uplink
	// DefaultRoute says when this host's own packets go through the mesh; "": DefaultAuto.
	DefaultRoute     DefaultRoute
	DHCP4            netip.Prefix    // IPv4 subnet that this node serves on the segment; invalid: none
	RouterPreference string          // low, medium (also "") or high: which router hosts prefer
	RouterDNS        []netip.Addr    // name servers that hosts on the segment are told of
	STUN             []string        // HOST:PORT of STUN servers besides members
	NoPortmap        bool            // do not ask routers for a port
	DNS              netip.AddrPort  // where NAME.mesh.internal is answered; zero: the default
	NoDNS            bool            // do not answer names
	Share            api.ShareChange // of what this node does for others; what is nil stays as it was
	Logger           *slog.Logger
	Progress         func(Event) // may be nil; called from one goroutine at a time
	KeepTAP          func() bool // asked at the end: may the TAP outlive the process?
	Host             Host        // nil: this machine
	// Serve offers the node to its commands until ctx ends. nil: on SocketPath.
	Serve func(ctx context.Context, service api.Node) error
}

// DefaultRoute is a setting of --default-route.
type DefaultRoute string

// When this host takes a default route that a router on the segment advertises.
const (
	DefaultAuto   DefaultRoute = "auto" // while it has no other for IPv6
	DefaultAlways DefaultRoute = "always"
	DefaultNever  DefaultRoute = "never"
)

// Event is progress that an operator wants to see.
type Event struct {
	Kind  EventKind
	Text  string   // one line, complete in itself
	Words []string // of WaitingForApproval
}

// EventKind says what an Event is about.
type EventKind int

const (
	// Progress is a step done or begun.
	Progress EventKind = iota
	// Founded comes once, after a network was founded. Text is what others type.
	Founded
	// WaitingForApproval comes when an admin has to compare Words.
	WaitingForApproval
	// Joined comes once, after the certificate was received.
	Joined
	// Warning is a thing that does not keep the node from running.
	Warning
	// Ready comes once the TAP is up and, when joining, a member is reached.
	Ready
)

// Host is what a node needs of the machine that it runs on. Tests have one in
// memory.
type Host interface {
	// Listen opens the UDP sockets on one port, one for each family there is.
	Listen(at netip.AddrPort) ([]udp.Conn, error)
	// OpenSegment opens the host's side of the Ethernet segment. It may return
	// no device when there is to be none.
	OpenSegment(cfg l2.TAPConfig) (l2.Device, error)
	// Candidates lists the addresses at which this host might be reached,
	// leaving out interface tap and addresses in prefixes.
	Candidates(port uint16, tap string, prefixes []netip.Prefix) ([]traversal.Candidate, error)
	// Watch yields after addresses, routes or links have changed.
	Watch(ctx context.Context) <-chan struct{}
	// Resolve looks up a host's addresses outside the mesh.
	Resolve(ctx context.Context, host string) ([]netip.Addr, error)
}

const (
	// gatherEvery bounds how long a missed address change goes unnoticed.
	gatherEvery = 15 * time.Second
	// syncEvery is how often records are compared with one neighbour.
	syncEvery = 10 * time.Second
	// cacheEvery is how soon a new way to a member is written to the cache.
	cacheEvery = time.Minute
	// The cache is written at once for new records, and then again after cachePerMember for each member, within these
	// bounds: in a small network each counts, for who is killed right after another's join has few to ask for it.
	cachePerMember = 20 * time.Millisecond
	cacheSoonest   = 100 * time.Millisecond
	cacheLatest    = 2 * time.Second
	// joinPatience is how long an entry point has to answer, and how long the signer
	// behind it may be silent while this node joins.
	joinPatience = 8 * time.Second
	// signerPatience is the same for a signer that has answered by itself: it was there.
	signerPatience = 20 * time.Second
	// joinAtMost is how long a join by invite may take with signs of life all along.
	joinAtMost = 2 * time.Minute
	// joinLook is how often signs of life are looked for.
	joinLook = 250 * time.Millisecond
	// meetAgain is how long a hello may take that repeats an earlier one.
	meetAgain = 3 * time.Second
	// entriesEvery is how often the entry points are tried while nobody is
	// reached.
	entriesEvery = 10 * time.Second
	// entriesAtMost is the longest pause between attempts to meet one that has not
	// answered since this node joined, while others are reached.
	entriesAtMost = 10 * time.Minute
)
