package path

import (
	"io"
	"net/netip"
	"time"
)

// Config is what a Table is made with.
type Config struct {
	Rand        io.Reader // source of transaction ids; nil: crypto/rand
	KeepMapping bool      // keep the active path's NAT mapping alive while idle
}

// Ping is a probe to be sent.
type Ping struct {
	Addr        netip.AddrPort
	Transaction [12]byte
	Size        int // of the UDP payload to pad to; 0: no padding
}

// PathState is one address as the status command shows it.
type PathState struct {
	Addr      netip.AddrPort
	RTT       time.Duration // smoothed; 0 until measured
	Loss      float64       // of recent probes, 0 to 1
	Up        bool          // confirmed and not dead
	Active    bool          // the one that Best returns
	MTU       int           // IP packets known to pass
	LastHeard time.Time     // a pong or authenticated data from there
}

// Table is the candidates of one remote node and what is known of each. It is
// owned by one goroutine.
type Table struct{ cfg Config }

// New makes a Table without candidates.
func New(cfg Config) *Table { return &Table{cfg: cfg} }

// SetCandidates replaces the addresses that records name.
func (t *Table) SetCandidates(addrs []netip.AddrPort, now time.Time) {}

// Learn says that an authenticated packet or ping came from addr. If that is
// new, it is probed before anything else is sent there.
func (t *Table) Learn(addr netip.AddrPort, now time.Time) {}

// Want says whether frames wait for the remote or a session with it is in use.
func (t *Table) Want(on bool, now time.Time) {}

// Tick returns the probes that are due and when to call it next; the zero time
// if nothing is to be done until another method is called. Every other method
// may bring that forward: call Tick after any of them. The slice is valid until the next call.
func (t *Table) Tick(now time.Time) (pings []Ping, wake time.Time) { return nil, time.Time{} }

// Pong says that the remote answered transaction, from addr.
func (t *Table) Pong(addr netip.AddrPort, transaction [12]byte, now time.Time) {}

// Heard says that authenticated transport data came from addr.
func (t *Table) Heard(addr netip.AddrPort, now time.Time) {}

// Sent says that data was sent to the active path.
func (t *Table) Sent(now time.Time) {}

// LocalChange says that our own addresses have changed: verdicts on paths no
// longer hold and all are probed again at once.
func (t *Table) LocalChange(now time.Time) {}

// Best is the address to send to; ok is false while none is confirmed.
func (t *Table) Best() (addr netip.AddrPort, ok bool) { return netip.AddrPort{}, false }

// Confirmed reports whether there is a confirmed path.
func (t *Table) Confirmed() bool { return false }

// MTU is the largest IP packet known to pass on the active path.
func (t *Table) MTU() int { return 1280 }

// Snapshot returns the state of every address, the active one first.
func (t *Table) Snapshot() []PathState { return nil }
