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
	for i, t := range targets {
		fmt.Printf("fuzz %d/%d %s %s\n", i+1, len(targets), t.dir, t.name)
		if err := t.fuzz(duration, 3); err != nil {
			return err
		}
	}
	fmt.Printf("%d fuzz targets passed\n", len(targets))
	return nil
}

// fuzz runs one target. Go's own machinery sometimes takes the end of the time for a failure of the target ("context deadline
// exceeded", without an input that fails: golang/go issue 75804): such a run is none, and is made again.
func (t target) fuzz(duration time.Duration, tries int) error {
	cmd := exec.Command("go", "test", "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+duration.String(), "-fuzzminimizetime=1x", "./"+t.dir)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if tries > 1 && bytes.Contains(out, []byte("context deadline exceeded")) && !bytes.Contains(out, []byte("Failing input")) {
		return t.fuzz(duration, tries-1)
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
