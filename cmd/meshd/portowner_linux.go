package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portOwner says which program has a UDP port on this host, as in "dnsmasq (pid 12)", or "" if it cannot be found out.
func portOwner(port uint16) string {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		socketInodes(table, port, inodes)
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		if pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", clean(strings.TrimSpace(string(name))), pid)
	}
	return ""
}

// socketInodes adds the sockets at a port to inodes, in the form that links in /proc/PID/fd have. The table's second column is
// ADDRESS:PORT in hexadecimal, its tenth the inode.
func socketInodes(table string, port uint16, inodes map[string]bool) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		col := strings.Fields(sc.Text())
		if len(col) < 10 {
			continue
		}
		if strings.HasSuffix(col[1], fmt.Sprintf(":%04X", port)) {
			inodes["socket:["+col[9]+"]"] = true
		}
	}
}
