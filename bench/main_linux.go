package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"meshd/bench/report"
	"meshd/integration/lab"
)

// config is the command line.
type config struct {
	variants string
	rounds   int
	duration time.Duration
	quick    bool
	offloads bool // also with the veth's offloads off
	install  bool
	out      string
	plots    string
	redraw   string
	soak     time.Duration
	story    time.Duration
	scaling  bool
	members  int
	repeats  int
	budget   time.Duration
	paths    map[string]string
}

func main() {
	lab.Shim()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	run := run
	if len(os.Args) > 1 && os.Args[1] == forwardCommand {
		run = func(ctx context.Context, args []string, _ io.Writer) error { return forward(ctx, args[1:]) }
	}
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string) (*config, error) {
	c := &config{paths: make(map[string]string)}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&c.variants, "variants", "", "names of variants, with commas between them; \"all\" also for meshd with a second MTU, through a third host and over TLS (default: all but those)")
	f.IntVar(&c.rounds, "rounds", 3, "how often each variant is measured")
	f.DurationVar(&c.duration, "duration", time.Second, "of each sample of TCP, in whole seconds")
	f.BoolVar(&c.quick, "quick", false, "one short round of the most important figures")
	f.BoolVar(&c.offloads, "offloads-off", true, "measure TCP also with all offloads of the veth off")
	f.BoolVar(&c.install, "install", true, "install missing programs with apt")
	f.StringVar(&c.out, "out", "bench/results", "folder for result.json, tables.md and the plots")
	f.StringVar(&c.plots, "plots", "", "folder for the plots (default: that of -out)")
	f.StringVar(&c.redraw, "redraw", "", "measure nothing: make tables and plots of this JSON")
	f.DurationVar(&c.soak, "soak", 0, "compare nothing: run TCP at full rate and numbered datagrams through meshd for so long, and look for what goes wrong")
	f.DurationVar(&c.story, "story", 0, "compare meshd on a slow link with vde2 over ssh alone, with samples of TCP of so long")
	f.BoolVar(&c.scaling, "scaling", false, "compare nothing: measure what a frame costs as members, sessions, stations and cores grow")
	f.IntVar(&c.members, "members", 0, "compare nothing: measure an idle node that knows so many members")
	f.IntVar(&c.repeats, "repeats", 2, "how often a sample is repeated, at most, when other programs disturb it")
	f.DurationVar(&c.budget, "repeat-budget", 2*time.Minute, "how long all repeats may take together")
	for _, program := range []string{"meshd", "zerotier-one", "nebula", "easytier-core"} {
		f.Func(program, "path of "+program, func(path string) error {
			c.paths[program] = path
			return nil
		})
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if c.rounds < 1 || c.duration < time.Second || c.repeats < 0 {
		return nil, errors.New("-rounds and -duration must be 1 (1s) or more, and -repeats not negative")
	}
	if c.quick {
		c.rounds = 1
	}
	if c.plots == "" {
		c.plots = c.out
	}
	return c, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	if c.redraw != "" && c.story > 0 {
		return redrawStory(c.redraw, out)
	}
	if c.redraw != "" {
		f, err := os.Open(c.redraw)
		if err != nil {
			return err
		}
		defer f.Close()
		result, err := report.Read(f)
		if err != nil {
			return err
		}
		return publish(c, result, out)
	}
	if os.Geteuid() != 0 {
		return errors.New("it makes network namespaces and TAPs: run it as root")
	}
	switch {
	case c.soak > 0:
		return runSoak(ctx, c, out)
	case c.story > 0:
		return runStory(ctx, c, out)
	case c.scaling:
		return runScaling(ctx, c, out)
	case c.members > 0:
		return runMembers(ctx, c, out)
	}
	result, err := bench(ctx, c)
	if err != nil {
		return err
	}
	return publish(c, result, out)
}

// choose returns the variants that are asked for.
func choose(names string) ([]Variant, error) {
	all := variants()
	if names == "all" {
		return all, nil
	}
	if names == "" {
		return slices.DeleteFunc(all, func(v Variant) bool {
			switch v := v.(type) {
			case *meshd:
				return v.mtu != 0
			case *between, *overTLS:
				return true
			}
			return false
		}), nil
	}
	var chosen []Variant
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(all, func(v Variant) bool { return v.Name() == name })
		if i < 0 {
			return nil, fmt.Errorf("no variant %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// bench measures all variants, round by round.
func bench(ctx context.Context, c *config) (*report.Result, error) {
	chosen, err := choose(c.variants)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "meshd-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	result := &report.Result{Machine: machine(ctx), Options: report.Options{Rounds: c.rounds, Duration: c.duration.Seconds(), Quick: c.quick}}
	tools := &Tools{Dir: dir, Install: c.install, Paths: c.paths}
	if err := errors.Join(tools.Package(ctx, "iperf3", "iperf3"), tools.Package(ctx, "iputils-ping", "ping")); err != nil {
		return nil, err
	}
	var able []Variant
	for _, v := range chosen {
		entry := report.Variant{Name: v.Name(), About: v.About()}
		if err := v.Find(ctx, tools); err != nil {
			entry.Missing = err.Error()
			log.Printf("%s: not available: %v", v.Name(), err)
		} else {
			able = append(able, v)
		}
		result.Variants = append(result.Variants, entry)
	}
	left := &budget{left: c.budget}
	for round := range c.rounds {
		for _, v := range able {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			once(ctx, c, v, round, left, result)
		}
		slices.Reverse(able) // so that what drifts in the machine hits all alike
	}
	result.Machine.Seconds = time.Since(began).Seconds()
	return result, nil
}

// once measures a variant in one round, with the veth's offloads and without.
func once(ctx context.Context, c *config, v Variant, round int, left *budget, result *report.Result) {
	p := plan{tcp: c.duration, steady: c.duration, udp: 300 * time.Millisecond, repeats: c.repeats, quick: c.quick}
	if c.quick {
		p.steady, p.udp, p.repeats = 400*time.Millisecond, 150*time.Millisecond, 0
	}
	sets := []bool{false}
	if c.offloads && !c.quick {
		sets = []bool{false, true}
	}
	for _, off := range sets {
		samples, err := measure(ctx, v, &meter{plan: p, round: round, off: off, budget: left})
		if err != nil {
			log.Printf("round %d: %v", round+1, err)
		}
		if len(samples) > 0 {
			log.Printf("round %d: %-18s %s", round+1, v.Name(), describe(samples))
		}
		result.Samples = append(result.Samples, samples...)
	}
}

// machine describes this one.
func machine(ctx context.Context) report.Machine {
	m := report.Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Began: time.Now().UTC().Truncate(time.Second)}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = cpuModel(string(text))
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryMB = int(uint64(info.Totalram) * uint64(info.Unit) >> 20)
	}
	m.Revision = revision(ctx)
	return m
}

// cpuModel is the first model name in /proc/cpuinfo.
func cpuModel(text string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// publish writes all that is made of a result, and prints the tables.
func publish(c *config, result *report.Result, out io.Writer) error {
	for _, dir := range []string{c.out, c.plots} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if c.redraw == "" {
		if err := create(filepath.Join(c.out, "result.json"), result.Write); err != nil {
			return err
		}
	}
	if err := create(filepath.Join(c.out, "tables.md"), result.Tables); err != nil {
		return err
	}
	for _, plot := range report.Plots() {
		svg, err := result.SVG(plot)
		if err != nil {
			return err
		}
		if svg == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(c.plots, plot.Name+".svg"), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return result.Tables(out)
}

// create writes a file.
func create(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
