package api

import (
	"net/netip"
	"time"
)

// Status is all that `meshd status --json` prints. [Status.Canonical] puts it in the form users rely on.
type Status struct {
	Version  string     `json:"version"`
	Network  Network    `json:"network"`
	Self     Self       `json:"self"`
	Peers    []Peer     `json:"peers"`
	Relaying []Relaying `json:"relaying"`
	Health   []Health   `json:"health"`
}

// Network is the network this node is a member of.
type Network struct {
	ID       string         `json:"id"`
	Name     string         `json:"name"`
	Prefixes []netip.Prefix `json:"prefixes"`
}

// Self is this node.
type Self struct {
	ID            string       `json:"id"`
	Name          string       `json:"name"`
	Roles         []string     `json:"roles"`
	Addresses     []netip.Addr `json:"addresses"`
	MAC           string       `json:"mac"`
	TAP           string       `json:"tap"`
	MTU           int          `json:"mtu"`
	Endpoints     []Endpoint   `json:"endpoints"`
	NAT           NAT          `json:"nat"`
	UptimeSeconds float64      `json:"uptime_seconds"`
	Ready         bool         `json:"ready"`
	// Waiting holds the six words while the node waits for an admin's approval.
	Waiting string `json:"waiting,omitempty"`
	// CertificateExpires is when the certificate ends; absent before there is one.
	CertificateExpires time.Time `json:"certificate_expires,omitzero"`
	// Bridge is the LAN that this node bridges; absent without --bridge.
	Bridge *Bridge `json:"bridge,omitempty"`
}

// Bridge is a node's port to a LAN.
type Bridge struct {
	Name      string   `json:"name"`      // of the bridge; "" while the TAP is in none
	State     string   `json:"state"`     // listening, blocked, forwarding, or alone without a link
	Segment   string   `json:"segment"`   // names the LAN
	Forwarder string   `json:"forwarder"` // the member that forwards for it; "": not known
	Beside    []string `json:"beside"`    // the other members on it
}

// Endpoint is an address at which this node might be reached.
type Endpoint struct {
	Addr string       `json:"addr"`
	Kind EndpointKind `json:"kind"`
}

// EndpointKind says how an endpoint was learned.
type EndpointKind string

// The kinds of endpoint.
const (
	EndpointHost       EndpointKind = "host"
	EndpointReflexive  EndpointKind = "reflexive"
	EndpointMapped     EndpointKind = "mapped"
	EndpointAdvertised EndpointKind = "advertised"
	EndpointTLS        EndpointKind = "tls" // of the TLS listener; the others are of UDP
)

// NAT is what is known of the translation in front of this node, in the terms of RFC 5780.
type NAT struct {
	// Mapping is endpoint-independent, address-dependent, address-and-port-dependent, none or unknown.
	Mapping string `json:"mapping"`
	// UDP says whether datagrams get through at all.
	UDP bool `json:"udp"`
}

// Member is a member that an admin has dealt with.
type Member struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
	// Expires is when its certificate ends.
	Expires time.Time `json:"expires,omitzero"`
	// Also are the ids of those whose membership ended with its.
	Also []string `json:"also"`
}

// Peer is another member as this node sees it: as wide as the line of JSON that users rely on.
type Peer struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	Roles     []string     `json:"roles"`
	Addresses []netip.Addr `json:"addresses"`
	MAC       string       `json:"mac"`
	State     PeerState    `json:"state"`
	// Transport is udp4, udp6, tcp or ssh; empty without a session.
	Transport string `json:"transport"`
	Endpoint  string `json:"endpoint"`
	// Via names the relays in order; empty on a direct path.
	Via       []string `json:"via"`
	RTTMillis float64  `json:"rtt_ms"`
	PathMTU   int      `json:"path_mtu"`
	Paths     []Path   `json:"paths"`
	// TxBytes and RxBytes count Ethernet frames; the rates are what they grew by lately.
	TxBytes uint64 `json:"tx_bytes"`
	RxBytes uint64 `json:"rx_bytes"`
	TxBPS   uint64 `json:"tx_rate_bps"`
	RxBPS   uint64 `json:"rx_rate_bps"`
	// Dropped counts frames that could not be sent or taken, QueueDropped those that waited for a session for too long, or
	// were the oldest when too many waited.
	Dropped      uint64 `json:"dropped"`
	QueueDropped uint64 `json:"queue_dropped"`
	// NATMapping is the mapping behaviour of the NAT in front of it, in the words of NAT.Mapping: as the member
	// said when a direct path was sought, and unknown before.
	NATMapping string `json:"nat_mapping"`
	// LastSeen and LastHandshake are absent when there was none.
	LastSeen      time.Time `json:"last_seen,omitzero"`
	LastHandshake time.Time `json:"last_handshake,omitzero"`
}

// PeerState says how a member is connected.
type PeerState string

// The states of a peer. Direct and Relayed mean that a session exists.
const (
	StateDirect     PeerState = "direct"
	StateRelayed    PeerState = "relayed"
	StateIdle       PeerState = "idle"
	StateConnecting PeerState = "connecting"
	StateOffline    PeerState = "offline"
)

// Connected reports whether the state means that a session exists.
func (s PeerState) Connected() bool { return s == StateDirect || s == StateRelayed }

// Alive reports whether a member in this state is known and not gone.
func (s PeerState) Alive() bool { return s == StateIdle || s.Connected() }

// Path is one of the ways to a peer.
type Path struct {
	Transport string   `json:"transport"`
	Endpoint  string   `json:"endpoint"`
	Via       []string `json:"via"`
	RTTMillis float64  `json:"rtt_ms"`
	// Loss and Share are between 0 and 1.
	Loss  float64 `json:"loss"`
	Share float64 `json:"share"`
	Up    bool    `json:"up"`
}

// Relaying is what this node carries for two others.
type Relaying struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Bytes   uint64 `json:"bytes"`
	RateBPS uint64 `json:"rate_bps"`
}

// Share is what this node does for others as a relay, and they for it.
type Share struct {
	On bool `json:"on"`
	// RateBPS and VolumeBytes (a month) are the limits, 0 for none; UsedBytes is what went in Month.
	RateBPS     uint64     `json:"rate_bps"`
	VolumeBytes uint64     `json:"volume_bytes"`
	Month       string     `json:"month"`
	UsedBytes   uint64     `json:"used_bytes"`
	For         []Relaying `json:"for"`
	By          []SharedBy `json:"by"`
}

// SharedBy is a member that this node talks to through others, the nearest first.
type SharedBy struct {
	Peer    string   `json:"peer"`
	Via     []string `json:"via"`
	RateBPS uint64   `json:"rate_bps"`
}

// ShareChange is what is to be changed of what a node does for others; nil leaves it.
type ShareChange struct {
	On          *bool   `json:"on,omitempty"`
	RateBPS     *uint64 `json:"rate_bps,omitempty"`
	VolumeBytes *uint64 `json:"volume_bytes,omitempty"`
}

// Health is one thing that is not as it should be.
type Health struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	Remedy   string   `json:"remedy"`
}

// Severity says how bad a [Health] is.
type Severity string

// The severities.
const (
	SeverityWarning Severity = "warning"
	SeverityError   Severity = "error"
)

// Host is one line of the broadcast domain as a table: a MAC and what is known of it.
type Host struct {
	MAC       string       `json:"mac"`
	VLAN      uint16       `json:"vlan"`
	Addresses []netip.Addr `json:"addresses"`
	// Member and MemberID name the member behind which the host is.
	Member   string `json:"member"`
	MemberID string `json:"member_id"`
	// Source is own (the TAP of this node), record (signed by its owner), binding (announced by its member) or
	// learned (from frames).
	Source string `json:"source"`
	// AgeSeconds counts from when it was last heard.
	AgeSeconds float64 `json:"age_seconds"`
}

// PingReply is the fate of one ping inside the mesh.
type PingReply struct {
	Seq int `json:"seq"`
	// Name is the member that was asked, resolved.
	Name      string  `json:"name"`
	Bytes     int     `json:"bytes"`
	RTTMillis float64 `json:"rtt_ms"`
	// State, Transport, Endpoint and Via are the path that the answer took.
	State     PeerState `json:"state"`
	Transport string    `json:"transport"`
	Endpoint  string    `json:"endpoint"`
	Via       []string  `json:"via"`
	Lost      bool      `json:"lost"`
	// Reason says why it was lost, when that is known.
	Reason string `json:"reason,omitempty"`
}

// Request is a joiner without an invite who waits for approval.
type Request struct {
	// Words are the six words that both sides show, separated by single spaces.
	Words string `json:"words"`
	// ID is the joiner's key; Name is only what it calls itself, and proves nothing.
	ID   string `json:"id"`
	Name string `json:"name"`
	// From is where it knocks, Introducer the member it knocks at.
	From       string    `json:"from"`
	Introducer string    `json:"introducer"`
	Asked      time.Time `json:"asked,omitzero"`
	Expires    time.Time `json:"expires,omitzero"`
}

// InviteOptions are the terms of an invite.
type InviteOptions struct {
	// Uses is how often it may be redeemed; at least 1.
	Uses int
	// Expires is how long it may be redeemed.
	Expires time.Duration
	// Roles are those of the members that it admits; empty means member alone.
	Roles []string
}

// Invite is an invite and its terms, as `meshd invite --json` prints it.
type Invite struct {
	Invite  string    `json:"invite"`
	Uses    int       `json:"uses"`
	Roles   []string  `json:"roles"`
	Expires time.Time `json:"expires,omitzero"`
}
