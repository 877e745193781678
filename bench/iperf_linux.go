package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"meshd/integration/lab"
)

// transfer is what a run of iperf3 has carried.
type transfer struct {
	bytes float64
	mbits float64 // Mbit/s
}

// parseIperf reads the output of iperf3 -J.
func parseIperf(out []byte) (transfer, error) {
	var doc struct {
		Error string `json:"error"`
		End   struct {
			Received struct {
				Bytes float64 `json:"bytes"`
				Bits  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return transfer{}, fmt.Errorf("parse iperf3's JSON: %w", err)
	}
	if doc.Error != "" {
		return transfer{}, errors.New("iperf3: " + doc.Error)
	}
	if doc.End.Received.Bytes <= 0 {
		return transfer{}, errors.New("iperf3: nothing was received")
	}
	return transfer{bytes: doc.End.Received.Bytes, mbits: doc.End.Received.Bits / 1e6}, nil
}

// iperf runs one test from a host against the server at to. With reverse the server sends.
func iperf(ctx context.Context, from *lab.Host, to netip.Addr, streams, seconds int, reverse bool) (transfer, error) {
	const slack = 15 * time.Second
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+slack)
	defer cancel()
	args := []string{"-J", "-c", to.String(), "-t", strconv.Itoa(seconds), "-P", strconv.Itoa(streams), "-C", "cubic", "--connect-timeout", "3000"}
	if reverse {
		args = append(args, "-R")
	}
	out, err := from.Command(ctx, "iperf3", args...).Output()
	t, parseErr := parseIperf(out)
	if parseErr == nil {
		return t, nil
	}
	return t, errors.Join(parseErr, err)
}

// parsePing returns the round trips in the output of ping, in ms, in the order of their arrival.
func parsePing(out string) []float64 {
	var all []float64
	for line := range strings.Lines(out) {
		_, rest, ok := strings.Cut(line, " time=")
		if !ok {
			continue
		}
		text, _, ok := strings.Cut(rest, " ms")
		if !ok {
			continue
		}
		if ms, err := strconv.ParseFloat(text, 64); err == nil {
			all = append(all, ms)
		}
	}
	return all
}

// ping sends echo requests for so long, one every 10 ms, and returns the round trips in ms.
func ping(ctx context.Context, from *lab.Host, to netip.Addr, d time.Duration) ([]float64, error) {
	const interval = 10 * time.Millisecond
	count := max(10, int(d/interval))
	ctx, cancel := context.WithTimeout(ctx, d+10*time.Second)
	defer cancel()
	out, err := from.Command(ctx, "ping", "-n", "-i", "0.01", "-W", "1", "-c", strconv.Itoa(count), to.String()).Output()
	all := parsePing(string(out))
	if len(all) < count/2 {
		return nil, fmt.Errorf("ping %v: %d of %d answered (%v)", to, len(all), count, err)
	}
	return all, nil
}
