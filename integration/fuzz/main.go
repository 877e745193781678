// Command fuzz runs every fuzz target of the module for a while, one after the
// other. It fails if a target fails, or if there is none.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	duration := flag.Duration("time", 5*time.Second, "how long each target runs")
	flag.Parse()
	if err := run(*duration); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// target is one fuzz function.
type target struct{ dir, name string }

func run(duration time.Duration) error {
	targets, err := find(".")
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fmt.Errorf("no fuzz target was found")
	}
	tests, err := os.MkdirTemp("", "meshd-fuzz-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tests)
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	r := runner{duration: duration, tests: tests, inputs: filepath.Join(strings.TrimSpace(string(cache)), "fuzz", "meshd")}
	for i, t := range targets {
		fmt.Printf("fuzz %d/%d %s %s\n", i+1, len(targets), t.dir, t.name)
		test, err := r.build(t.dir)
		if err != nil {
			return err
		}
		if err := r.fuzz(t, test, 3); err != nil {
			return err
		}
	}
	fmt.Printf("%d fuzz targets passed\n", len(targets))
	return nil
}

// runner runs targets; of a package with many, `go test` would link the test for each.
type runner struct {
	duration time.Duration
	tests    string // folder of the compiled tests
	inputs   string // folder of the inputs that were found to be interesting, where `go test -fuzz` keeps them
}

// build compiles the test of a package, unless it is there.
func (r runner) build(dir string) (test string, err error) {
	test = filepath.Join(r.tests, strings.ReplaceAll(filepath.ToSlash(dir), "/", "-")+".test")
	if _, err := os.Stat(test); err == nil {
		return test, nil
	}
	out, err := exec.Command("go", "test", "-c", "-fuzz=.", "-o", test, "./"+dir).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the test of %s: %w\n%s", dir, err, out)
	}
	return test, nil
}

// fuzz runs one target. Go's own machinery sometimes takes the end of the time for a failure of the target ("context deadline
// exceeded", without an input that fails: golang/go issue 75804): such a run is none, and is made again.
func (r runner) fuzz(t target, test string, tries int) error {
	cmd := exec.Command(test, "-test.run=^$", "-test.fuzz=^"+t.name+"$", "-test.fuzztime="+r.duration.String(),
		"-test.fuzzminimizetime=1x", "-test.fuzzcachedir="+filepath.Join(r.inputs, t.dir))
	cmd.Dir = t.dir
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if tries > 1 && bytes.Contains(out, []byte("context deadline exceeded")) && !bytes.Contains(out, []byte("Failing input")) {
		return r.fuzz(t, test, tries-1)
	}
	return fmt.Errorf("%s %s: %w\n%s", t.dir, t.name, err, out)
}

// find lists the fuzz targets below a folder.
func find(root string) (targets []target, err error) {
	declaration := regexp.MustCompile(`^func (Fuzz\w+)\(`)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if m := declaration.FindStringSubmatch(lines.Text()); m != nil {
				targets = append(targets, target{filepath.Dir(path), m[1]})
			}
		}
		return nil
	})
	return targets, err
}
