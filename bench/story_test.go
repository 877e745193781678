//go:build linux

package main

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStory runs the comparison with vde2 over ssh for a short while, at the loss where they differ most. How much TCP
// gets through is chance in so short a time; that a ping does not wait behind what TCP sends again is not.
func TestStory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and TAPs")
	}
	for _, program := range []string{"vde_switch", "dpipe", "ssh", "/usr/sbin/sshd", "radvd", "iperf3"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := newStory(ctx, built(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.pair.Close(); err != nil {
			t.Error(err)
		}
	}()
	ping := make(map[string]float64) // beside TCP, the worse way
	for _, way := range s.ways[1:] {
		sample, err := s.sample(ctx, way, 0.005, 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(sample)
		if sample.Up < 0.5 || sample.Down < 0.5 || sample.Idle < 40 {
			t.Errorf("%s: not the link that is meant", way.name)
		}
		ping[way.name] = max(sample.PingUp, sample.PingDown)
	}
	if ping["meshd"]*1.5 > ping["vde2 over ssh"] {
		t.Errorf("round trips beside TCP: %v", ping)
	}
	moves, err := s.move(ctx, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range moves {
		t.Logf("%+v", m)
		if m.Way == "meshd" && (!m.Back || m.Outage > 4) || m.Way != "meshd" && m.Back {
			t.Errorf("after the laptop's address has changed: %+v", m)
		}
	}
}

func TestStoryTables(t *testing.T) {
	r := &storyResult{Moves: []storyMove{{Way: "a", Sent: 9, Lost: 2, Outage: 0.25, Back: true}, {Way: "b", Sent: 9, Lost: 8}}}
	for _, up := range []float64{1, 30, 2} {
		r.Samples = append(r.Samples, storySample{Way: "a", Loss: 0.001, Up: up, Down: 5, Idle: 41.25, PingUp: 100, PingDown: 50})
	}
	lines := strings.Split(r.tables(), "\n")
	for _, want := range []string{"| 0.1 % | a | 2 (1 to 30) | 100 | 5 (5 to 5) | 50 | 41.2 |", "| a | 2 of 9 | 0.25 s |", "| b | 8 of 9 | for good |"} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in\n%s", want, r.tables())
		}
	}
}
