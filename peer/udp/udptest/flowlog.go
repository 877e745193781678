package udptest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshd/peer/udp"
)

const (
	maxRecent = 2000 // datagrams of which the log has a line
	maxFlows  = 5000 // flows that are counted
)

// flowLog remembers the fate of datagrams, for when a test fails. The Internet's
// lock guards it.
type flowLog struct {
	start  time.Time
	recent []fate // a ring
	next   int
	flows  map[flow]*flowCount
}

// flow is all datagrams of one kind from one address to another, as sent.
type flow struct {
	src, dst netip.AddrPort
	kind     udp.Kind
}

type flowCount struct {
	delivered int
	dropped   map[string]int // by reason
}

// fate is the end of one datagram.
type fate struct {
	flow
	size             int
	sentAt, endedAt  time.Time
	seenSrc, seenDst netip.AddrPort
	reason           string // why it was dropped; empty when delivered
}

func (l *flowLog) delivered(d *passage)              { l.add(d, "") }
func (l *flowLog) dropped(d *passage, reason string) { l.add(d, reason) }

func (l *flowLog) add(d *passage, reason string) {
	f := fate{
		flow: flow{d.sentSrc, d.sentDst, udp.Classify(d.data)}, size: len(d.data),
		sentAt: d.sentAt, endedAt: time.Now(), seenSrc: d.src, seenDst: d.dst, reason: reason,
	}
	if len(l.recent) < maxRecent {
		l.recent = append(l.recent, f)
	} else {
		l.recent[l.next] = f
		l.next = (l.next + 1) % maxRecent
	}
	c := l.flows[f.flow]
	if c == nil {
		if len(l.flows) >= maxFlows {
			return
		}
		if l.flows == nil {
			l.flows = make(map[flow]*flowCount)
		}
		c = &flowCount{dropped: make(map[string]int)}
		l.flows[f.flow] = c
	}
	if reason == "" {
		c.delivered++
	} else {
		c.dropped[reason]++
	}
}

// Log tells what became of the datagrams: the last ones each, and all by flow.
func (n *Internet) Log() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var b strings.Builder
	l := &n.flows
	fmt.Fprintf(&b, "last %d datagrams, %d events outstanding:\n", len(l.recent), len(n.events))
	for i := range l.recent {
		l.recent[(l.next+i)%len(l.recent)].write(&b, l.start)
	}
	b.WriteString("flows:\n")
	flows := make([]flow, 0, len(l.flows))
	for f := range l.flows {
		flows = append(flows, f)
	}
	slices.SortFunc(flows, func(a, b flow) int {
		return cmp.Or(a.src.Compare(b.src), a.dst.Compare(b.dst), cmp.Compare(a.kind, b.kind))
	})
	for _, f := range flows {
		l.flows[f].write(&b, f)
	}
	return b.String()
}

func (f fate) write(b *strings.Builder, start time.Time) {
	fmt.Fprintf(b, "%12v %v -> %v", f.sentAt.Sub(start), f.src, f.dst)
	if f.seenSrc != f.src || f.seenDst != f.dst {
		fmt.Fprintf(b, " (then %v -> %v)", f.seenSrc, f.seenDst)
	}
	fmt.Fprintf(b, " %v %d B: ", f.kind, f.size)
	if f.reason != "" {
		fmt.Fprintf(b, "dropped after %v: %s\n", f.endedAt.Sub(f.sentAt), f.reason)
		return
	}
	fmt.Fprintf(b, "delivered after %v\n", f.endedAt.Sub(f.sentAt))
}

func (c *flowCount) write(b *strings.Builder, f flow) {
	fmt.Fprintf(b, "  %v -> %v %v: %d delivered", f.src, f.dst, f.kind, c.delivered)
	reasons := make([]string, 0, len(c.dropped))
	for r := range c.dropped {
		reasons = append(reasons, r)
	}
	slices.Sort(reasons)
	for _, r := range reasons {
		fmt.Fprintf(b, ", %d %s", c.dropped[r], r)
	}
	b.WriteByte('\n')
}

// T is what LogOnFailure needs of a testing.TB.
type T interface {
	Cleanup(func())
	Failed() bool
	Log(args ...any)
}

// LogOnFailure has the test print the Log when it has failed.
func (n *Internet) LogOnFailure(t T) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.Log())
		}
	})
}
