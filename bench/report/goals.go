package report

// Goal is a number that meshd has to hold.
type Goal struct {
	What      string
	Metric    Metric
	Over      string // the variant that the value is divided by; "" for the value itself
	Least     bool   // the value must be at least Must, else at most
	Must, Aim float64
}

// Variants that goals refer to besides Baseline.
const (
	zeroTier = "zerotier"      // the best layer 2 peer
	Fitted   = "meshd-mtu1400" // meshd with an MTU that fits the path

	Relayed   = "meshd-relayed"   // meshd through a third member
	Forwarded = "meshd-forwarded" // meshd through the least forwarder
	OverTLS   = "meshd-tls"       // meshd over TLS, where no UDP passes
)

// goals are the "Numbers to hold".
//
// Large UDP's are of the data path's plan: within 0.8 of datagrams that fit.
func goals() []Goal {
	return []Goal{
		{"TCP, 1 stream, over wireguard-go", TCP1, Baseline, true, 1.5, 1.8},
		{"TCP, 4 streams, over wireguard-go", TCP4, Baseline, true, 1.6, 2.0},
		{"TCP, 1 stream, over ZeroTier", TCP1, zeroTier, true, 2.0, 2.4},
		{"CPU s/GB over wireguard-go", CPU1, Baseline, false, 0.6, 0.45},
		{"idle RTT over wireguard-go", RTT, Baseline, false, 0.7, 0.4},
		{"idle RTT over ZeroTier", RTT, zeroTier, false, 2.0, 1.2},
		{"64-byte datagrams at 100,000/s: loss in %", Loss64, "", false, 1, 0},
		{"the same: CPU per datagram over wireguard-go", CPU64, Baseline, false, 0.4, 0.2},
		{"64-byte datagrams/s at less than 1 % loss, over wireguard-go", Rate64, Baseline, true, 3, 5},
		{"the same over ZeroTier", Rate64, zeroTier, true, 0.8, 1.2},
		{"offloads off: TCP, 1 stream, over ZeroTier", OffTCP1, zeroTier, true, 1.0, 1.3},
		{"memory of a node after the floods, MiB", Memory, "", false, 64, 32},
		{"MTU 1500 over an MTU that fits: TCP, 1 stream", TCP1, Fitted, true, 0.95, 0.98},
		{"UDP of 1472 bytes over UDP of 1200", largeRatio, "", true, 0.8, 0.9},
		{"relayed over direct: TCP, 1 stream", relayedRatio, "", true, 0.85, 0.95},
		{"CPU of the relay by byte over the least forwarder's", relayCPURatio, "", false, 1.3, 1.1},
	}
}

// Verdict is how a goal was met.
type Verdict struct {
	Goal
	Known bool
	Value float64
}

// Word is "aim", "must", "missed" or "not measured".
func (v Verdict) Word() string {
	beats := func(limit float64) bool {
		if v.Least {
			return v.Value >= limit
		}
		return v.Value <= limit
	}
	switch {
	case !v.Known:
		return "not measured"
	case beats(v.Aim):
		return "aim"
	case beats(v.Must):
		return "must"
	}
	return "missed"
}

// Judge holds a variant to the goals.
func (r *Result) Judge(variant string) []Verdict {
	var all []Verdict
	for _, g := range goals() {
		v := Verdict{Goal: g}
		switch {
		case g.Metric == largeRatio:
			large, okLarge := r.Stat(variant, UDP1472)
			fitted, okFitted := r.Stat(variant, UDP1200)
			if v.Known = okLarge && okFitted && fitted.Median > 0; v.Known {
				v.Value = large.Median / fitted.Median
			}
		case g.Metric == relayedRatio:
			v.Value, v.Known = r.Ratio(Relayed, variant, TCP1)
		case g.Metric == relayCPURatio:
			v.Value, v.Known = r.Ratio(Relayed, Forwarded, CPUMiddle)
		case g.Over != "":
			v.Value, v.Known = r.Ratio(variant, g.Over, g.Metric)
		default:
			var s Stat
			s, v.Known = r.Stat(variant, g.Metric)
			v.Value = s.Median
		}
		all = append(all, v)
	}
	return all
}
