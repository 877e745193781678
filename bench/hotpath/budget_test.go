//go:build linux && amd64 && !race

package hotpath

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

const (
	budgetFile = "budget.txt"
	// tolerance is how far a count may be from its budget.
	tolerance = 0.03
	// baseFile is what a plain learning switch cost; what makes a LAN of it that can be
	// trusted may cost so much more, in all.
	baseFile  = "base.txt"
	allowance = 0.05
	// repeats is how far two counts of one program may differ, as a part of what the whole way costs.
	repeats = 0.001
	// countTimes is how often each batch is sent under callgrind.
	countTimes = 200
)

var update = flag.Bool("update", false, "write "+budgetFile+" anew")

// costs are instructions per frame, by what is done with which traffic.
type costs map[string]float64

// TestBudget counts the instructions that a frame costs and compares them with
// the budget. What it counts does not depend on the machine's speed or load: valgrind
// shows a program the same processor (with AVX2) on every machine that has one.
func TestBudget(t *testing.T) {
	if _, err := exec.LookPath("valgrind"); err != nil {
		t.Skip("needs valgrind: make deps installs it")
	}
	if !cpu.X86.HasAVX2 || !cpu.X86.HasBMI2 {
		t.Skip("needs a processor with AVX2 and BMI2: ciphers take other instructions without")
	}
	if testing.CoverMode() != "" {
		t.Skip("coverage costs instructions, too")
	}
	got := callgrindRun(t)
	again := callgrindRun(t)
	for _, w := range ways() {
		for _, part := range []string{w.name + " out", w.name + " in"} {
			if math.Abs(again[part]-got[part]) > repeats*(got[w.name+" out"]+got[w.name+" in"]) {
				t.Errorf("%s: %.0f instructions, and %.0f when counted again: the count depends on something", part, got[part], again[part])
			}
		}
	}
	if *update {
		if err := writeBudget(got); err != nil {
			t.Fatal(err)
		}
		return
	}
	holdToBase(t, got)
	budget, with, err := readBudget(budgetFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(budget) != len(got) {
		t.Errorf("%s has %d lines, counted were %d", budgetFile, len(budget), len(got))
	}
	for _, name := range names() {
		d := got[name]/budget[name] - 1
		t.Logf("%-12s %8.0f instructions per frame, %+.1f %%", name, got[name], 100*d)
		switch {
		case d > tolerance || math.IsNaN(d):
			t.Errorf("%s costs %.0f instructions per frame, %+.1f %% of its budget of %.0f (counted %s; now %s): make it cheaper, or say in the commit why not and run: make budget",
				name, got[name], 100*d, budget[name], with, counter())
		case d < -tolerance:
			t.Errorf("%s costs %.0f instructions per frame, %+.1f %% of its budget of %.0f: so that it stays as cheap, run: make budget", name, got[name], 100*d, budget[name])
		}
	}
}

// holdToBase compares with what frames cost before there were guards and snooping. A new
// compiler changes both: then the base is to be counted again, at the commit that it names.
func holdToBase(t *testing.T, got costs) {
	t.Helper()
	base, with, err := readBudget(baseFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(base) != len(got) {
		t.Errorf("%s has %d lines, counted were %d", baseFile, len(base), len(got))
	}
	for _, name := range names() {
		d := got[name]/base[name] - 1
		t.Logf("%-12s %+.1f %% of what it was without guards and snooping", name, 100*d)
		if d > allowance || math.IsNaN(d) {
			t.Errorf("%s costs %.0f instructions per frame, %+.1f %% of the %.0f without guards and snooping (counted %s; now %s), %.0f %% more are allowed",
				name, got[name], 100*d, base[name], with, counter(), 100*allowance)
		}
	}
}

// names are the lines of the budget, in order.
func names() (all []string) {
	for _, w := range ways() {
		all = append(all, w.name+" out", w.name+" in")
	}
	return all
}

// callgrindRun runs TestHotPath under callgrind.
func callgrindRun(t *testing.T) costs {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("valgrind", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file="+filepath.Join(dir, "out"),
		self, "-test.run=^TestHotPath$", "-test.count=1", "-times", strconv.Itoa(countTimes))
	// One thread, no collection and no preemption by signals: what runs beside the frames is next to nothing.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("run callgrind: %v\n%s", err, out)
	}
	dumps, err := filepath.Glob(filepath.Join(dir, "out.*"))
	if err != nil {
		t.Fatal(err)
	}
	totals := map[string]float64{}
	for _, path := range dumps {
		label, total, err := readDump(path)
		if err != nil {
			t.Fatal(err)
		}
		totals[label] = total
	}
	got := costs{}
	for _, w := range ways() {
		frames := float64(countTimes * len(w.frames))
		out, through := totals[w.name+" out"]/frames, totals[w.name+" through"]/frames
		if out <= 0 || through <= out {
			t.Fatalf("%s: counted %v instructions out and %v through, of %v", w.name, out, through, totals)
		}
		got[w.name+" out"], got[w.name+" in"] = out, through-out
	}
	return got
}

// readDump returns what a dump of callgrind is of, and its instructions.
func readDump(path string) (label string, total float64, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", 0, err
	}
	return parseDump(text)
}

func parseDump(text []byte) (label string, total float64, err error) {
	for line := range bytes.Lines(text) {
		line := strings.TrimSpace(string(line))
		if rest, ok := strings.CutPrefix(line, "desc: Trigger: Client Request: "); ok {
			label = rest
		} else if rest, ok := strings.CutPrefix(line, "totals: "); ok {
			total, err = strconv.ParseFloat(rest, 64)
		}
	}
	if err == nil && (label == "" || total == 0) {
		err = errors.New("no label or no total")
	}
	if err != nil {
		err = fmt.Errorf("read callgrind's dump: %w", err)
	}
	return label, total, err
}

// counter says what counts.
func counter() string {
	version, err := exec.Command("valgrind", "--version").Output()
	if err != nil {
		version = []byte("valgrind")
	}
	return "with " + runtime.Version() + " and " + strings.TrimSpace(string(version))
}

func writeBudget(c costs) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Instructions per frame of the host, from its device to the wire (out) and back (in).\n# Written by: make budget. Counted %s.\n", counter())
	for _, name := range names() {
		fmt.Fprintf(&b, "%s %.0f\n", name, c[name])
	}
	return os.WriteFile(budgetFile, []byte(b.String()), 0o644)
}

func readBudget(file string) (c costs, with string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	c = costs{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "#"); ok {
			if _, counted, ok := strings.Cut(text, "Counted "); ok {
				with = strings.TrimSuffix(counted, ".")
			}
			continue
		}
		i := strings.LastIndexByte(lines.Text(), ' ')
		if i < 0 {
			return nil, "", fmt.Errorf("%s: no number in %q", file, lines.Text())
		}
		if c[lines.Text()[:i]], err = strconv.ParseFloat(lines.Text()[i+1:], 64); err != nil {
			return nil, "", fmt.Errorf("%s: %w", file, err)
		}
	}
	return c, with, lines.Err()
}

func TestParseDump(t *testing.T) {
	label, total, err := parseDump([]byte("# callgrind format\ndesc: Trigger: Client Request: udp64 out\nsummary: 11\n\ntotals: 12\n"))
	if label != "udp64 out" || total != 12 || err != nil {
		t.Errorf("got %q, %v, %v", label, total, err)
	}
	for _, bad := range []string{"", "totals: 12\n", "desc: Trigger: Client Request: a\n", "desc: Trigger: Client Request: a\ntotals: x\n"} {
		if _, _, err := parseDump([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
