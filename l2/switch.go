package l2

import "context"

// Switch is a learning switch between a device and remote members.
type Switch struct{ cfg Config }

// RemotePort is the port to one remote member. Its methods may be called from
// several goroutines.
type RemotePort struct{}

// NewSwitch makes a switch without remotes.
func NewSwitch(cfg Config) *Switch { return &Switch{cfg: cfg} }

// Run reads the device until ctx ends, then closes it. It returns nil on
// cancellation and an error when the device fails.
func (s *Switch) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Connect adds the port to a remote, or replaces the port and the rights of a
// remote that is there already; what was learned stays. name is opaque.
func (s *Switch) Connect(name string, p Port, allow Allow) *RemotePort { return &RemotePort{} }

// Disconnect removes a remote and forgets the stations behind it.
func (s *Switch) Disconnect(name string) {}

// SetOwn replaces this node's own address and rights.
func (s *Switch) SetOwn(own Allow) {}

// Hosts lists the stations of the segment, ordered by VLAN and address.
func (s *Switch) Hosts() []Host { return nil }

// Counters returns the totals since the start.
func (s *Switch) Counters() Counters { return Counters{} }

// Receive takes one Ethernet frame that came from the remote, valid for the call
// only, and queues it for the device if the remote may send it.
func (r *RemotePort) Receive(frame []byte) {}

// Flush ends a batch: it writes what Receive has queued to the device.
func (r *RemotePort) Flush() {}

// Traffic returns what crossed the port since Connect made it.
func (r *RemotePort) Traffic() Traffic { return Traffic{} }
