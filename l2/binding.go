package l2

import (
	"net/netip"
	"time"
)

// Segment names a physical LAN that several members bridge: a host that is behind another
// of them has not moved. Who has it is whoever forwards there (StandIn). Zero: none, a
// member speaks for its own hosts alone.
type Segment [8]byte

// Binding says that a station is behind a member, in the manner of an EVPN route of
// type 2 (RFC 7432, 7.2).
type Binding struct {
	VLAN uint16 // 0: untagged
	MAC  MAC
	Seq  uint32 // counts its moves between members (RFC 7432, 15)
	// Segment is the LAN that it is on; it counts only among members that share that (Allow.LAN).
	Segment Segment
	Router  bool         // it routes: neighbour advertisements for it say so (RFC 9161, 3.2)
	IPs     []netip.Addr // it has, in order; at most MaxBindingIPs
}

// MaxBindingIPs bounds the addresses of one binding.
const MaxBindingIPs = neighborIPs

func (b *Binding) station() station { return stationOf(b.VLAN, b.MAC) }

// Step is what a notice is about.
type Step uint8

// The steps of notices; their numbers are those of the wire.
const (
	StepHere         Step = 1 // these stations are behind the sender
	StepGone         Step = 2 // they are there no longer; Notice.To says who has them
	StepClaim        Step = 3 // a frame of these came to the sender: are they still behind the receiver?
	StepYield        Step = 4 // answer: no, take them
	StepKeep         Step = 5 // answer: yes
	StepClaimAddress Step = 6 // the same for the IP addresses of a binding
	StepYieldAddress Step = 7
	StepKeepAddress  Step = 8
)

// Notice is what two switches tell each other inside the session of their members.
type Notice struct {
	Step     Step
	Stamp    uint64 // grows with each notice of a sender
	To       string // StepGone: the name of the remote that has them now; "": nobody
	Bindings []Binding
}

// Announcer is a Port whose other end takes notices. Announce reports false when
// the notice cannot go now.
type Announcer interface{ Announce(n Notice) bool }

// Alarm is something about the stations that an operator should know.
type Alarm struct {
	Kind AlarmKind
	VLAN uint16
	MAC  MAC
	IP   netip.Addr // zero: the station itself
	Port string     // the remote that it is about
	Age  time.Duration
}

// AlarmKind says what is wrong.
type AlarmKind string

// The kinds of alarms, part of the health codes of status.
const (
	AlarmClaimed   AlarmKind = "station-claimed"   // a remote claims what answers here
	AlarmElsewhere AlarmKind = "station-elsewhere" // what was heard here answers behind a remote
	AlarmLoop      AlarmKind = "lans-joined"       // our side and that of a remote are one LAN, and both bridge it
	AlarmFlaps     AlarmKind = "station-flaps"     // it moved too often and stays for now (RFC 7432, 15.1)
)
