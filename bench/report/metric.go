package report

import "strings"

// Metric names something that is measured. Those with "off." before them are measured with the veth's offloads off.
type Metric string

// What is measured. TCP is named by streams, IP version and direction.
const (
	TCP1       Metric = "tcp1" // one stream over IPv4, both directions pooled
	TCP4       Metric = "tcp4" // four streams over IPv4, both directions pooled
	CPU1       Metric = "cpu.tcp1"
	CPU4       Metric = "cpu.tcp4"
	Machine1   Metric = "machine.tcp1"
	RTT        Metric = "rtt.idle"
	RTT99      Metric = "rtt.idle.p99"
	RTTLoad    Metric = "rtt.load"
	Loss64     Metric = "udp64.loss"
	CPU64      Metric = "udp64.cpu"
	Rate64     Metric = "udp64.max"
	UDP1472    Metric = "udp1472.max"
	UDP1200    Metric = "udp1200.max"
	Memory     Metric = "memory"
	FirstPing  Metric = "start"
	OffTCP1    Metric = "off.tcp1"
	OffTCP4    Metric = "off.tcp4"
	OffCPU1    Metric = "off.cpu.tcp1"
	CPUMiddle  Metric = "cpu.middle" // of the programs on a host in between
	largeRatio Metric = "udp1472/udp1200"

	relayedRatio  Metric = "relayed/direct"
	relayCPURatio Metric = "relay/forwarder"
)

// TCP is the metric of a TCP run: streams is 1 or 4, version 4 or 6, and ab says that A sends.
func TCP(streams, version int, ab bool) Metric {
	direction := "ba"
	if ab {
		direction = "ab"
	}
	return Metric("tcp" + string(rune('0'+streams)) + ".v" + string(rune('0'+version)) + "." + direction)
}

// Off is the metric as measured with the veth's offloads off.
func Off(m Metric) Metric { return "off." + m }

// parts are the metrics whose samples make up this one.
func (m Metric) parts() []Metric {
	switch m {
	case TCP1:
		return []Metric{TCP(1, 4, true), TCP(1, 4, false)}
	case TCP4:
		return []Metric{TCP(4, 4, true), TCP(4, 4, false)}
	case OffTCP1:
		return []Metric{Off(TCP(1, 4, true))}
	case OffTCP4:
		return []Metric{Off(TCP(4, 4, true))}
	}
	return []Metric{m}
}

// Unit of the metric's values.
func (m Metric) Unit() string {
	name := strings.TrimPrefix(string(m), "off.")
	switch {
	case strings.HasPrefix(name, "tcp"), m == UDP1472, m == UDP1200:
		return "Mbit/s"
	case strings.HasPrefix(name, "cpu."), strings.HasPrefix(name, "machine."):
		return "CPU s/GB"
	case strings.HasPrefix(name, "rtt."):
		return "ms"
	case m == Loss64:
		return "%"
	case m == CPU64:
		return "CPU s/Mpkt"
	case m == Rate64:
		return "kpkt/s"
	case m == Memory:
		return "MiB"
	case m == FirstPing:
		return "s"
	}
	return ""
}
