package main

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"meshd/integration/lab"
)

// counters are those of a host, by a name.
type counters map[string]int64

// since is what has been added.
func (c counters) since(before counters) counters {
	d := counters{}
	for name, n := range c {
		if n != before[name] {
			d[name] = n - before[name]
		}
	}
	return d
}

// sum adds up.
func (c counters) sum() (all int64) {
	for _, n := range c {
		all += n
	}
	return all
}

// queueDrops are what the queues of a host have dropped: of its interfaces and of its sockets.
func queueDrops(h *lab.Host) (counters, error) {
	all := counters{}
	err := h.Do(func() error {
		for _, name := range []string{wire, "mesh0"} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			s := link.Attrs().Statistics
			all[name+" sending"], all[name+" receiving"] = int64(s.TxDropped+s.TxErrors), int64(s.RxDropped+s.RxErrors)
			queues, err := netlink.QdiscList(link)
			if err != nil {
				return err
			}
			for _, q := range queues {
				if s := q.Attrs().Statistics; s != nil && s.Queue != nil {
					all[name+" queue"] += int64(s.Queue.Drops)
				}
			}
		}
		for _, file := range []string{"snmp", "snmp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil {
				return err
			}
			found := parseSNMP(string(text))
			for _, name := range []string{
				"Udp: RcvbufErrors", "Udp: SndbufErrors", "Udp: MemErrors", "Udp6RcvbufErrors", "Udp6SndbufErrors", "Udp6MemErrors",
				"Ip: InDiscards", "Ip: OutDiscards", "Ip6InDiscards", "Ip6OutDiscards",
			} {
				if n, ok := found[name]; ok {
					all[name] = n
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read counters of host %s: %w", h.Name(), err)
	}
	return all, nil
}

// tcpCounters are what a host's TCP has sent again, and what of it turns out to have been there before.
func tcpCounters(h *lab.Host) (counters, error) {
	all := counters{}
	err := h.Do(func() error {
		for _, file := range []string{"snmp", "netstat"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil {
				return err
			}
			maps.Copy(all, parseSNMP(string(text)))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read TCP's counters of host %s: %w", h.Name(), err)
	}
	return all, nil
}

// parseSNMP reads the content of /proc/net/snmp and netstat, where a line of names stands before a line of numbers, and
// of snmp6, where each line has a name and a number.
func parseSNMP(text string) counters {
	all := counters{}
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2:
		case !strings.HasSuffix(fields[0], ":"):
			if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				all[fields[0]] = n
			}
		case len(names) == len(fields) && names[0] == fields[0]:
			for i, field := range fields[1:] {
				if n, err := strconv.ParseInt(field, 10, 64); err == nil {
					all[fields[0]+" "+names[i+1]] = n
				}
			}
			names = nil
		default:
			names = fields
		}
	}
	return all
}
