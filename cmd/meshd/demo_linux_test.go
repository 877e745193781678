package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"meshd/integration/lab"
)

// needsLab skips a test where there can be no lab.
func needsLab(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	if err := errors.Join(lab.Supported(), tunUsable()); err != nil {
		t.Skip(err)
	}
}

// TestDemo runs the whole demo, with real nodes.
func TestDemo(t *testing.T) {
	needsLab(t)
	out, err := self(t, "real", "demo").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		`(?m)^ desktop\| waiting for approval: (\w+ ){5}\w+$`,
		`(?m)^  laptop\| ready laptop mesh0 fd`,
		`(?m)^   laptop received it, byte by byte the same, once$`,
		`(?m)^   nas received the query from fe80::`,
		`(?m)^   laptop gets the answer: nas.local is fd`,
		`(?m)^   outage: \d+(\.\d+)?m?s, `,
		`(?m)^== That was all\.`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("no line %s", want)
		}
	}
	if n := strings.Count(string(out), "10 of 10 answered"); n != 6 {
		t.Errorf("%d pairs ping, want 6", n)
	}
	if bytes.Contains(out, []byte("\x1b")) {
		t.Error("colours without a terminal")
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
	nothingLeft(t)
}

// TestDemoInterrupted ends it in the middle.
func TestDemoInterrupted(t *testing.T) {
	needsLab(t)
	cmd := self(t, "real", "demo")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "     nas| ready") {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 || stderr.String() != "meshd: demo: interrupted; everything is removed\n" {
		t.Errorf("%v, %q", err, &stderr)
	}
	nothingLeft(t)
}

// nothingLeft looks for processes and files of a demo that has ended.
func nothingLeft(t *testing.T) {
	t.Helper()
	if fileExists(demoState) {
		t.Errorf("%s is left", demoState)
	}
	if pid, ok := findDaemon(demoState); ok {
		t.Errorf("process %d is left", pid)
	}
}
