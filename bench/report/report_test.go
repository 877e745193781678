package report

import (
	"bytes"
	"encoding/xml"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []float64
		want   Stat
		known  bool
	}{
		{"none", nil, Stat{}, false},
		{"one", []float64{3}, Stat{1, 3, 3, 3}, true},
		{"odd, unsorted", []float64{9, 1, 4}, Stat{3, 4, 1, 9}, true},
		{"even", []float64{4, 1, 2, 9}, Stat{4, 3, 1, 9}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := append([]float64(nil), c.values...)
			got, known := summarize(c.values)
			if got != c.want || known != c.known {
				t.Errorf("got %+v, %v; want %+v, %v", got, known, c.want, c.known)
			}
			if !reflect.DeepEqual(before, append([]float64(nil), c.values...)) {
				t.Error("the caller's values were reordered")
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	sorted := []float64{0, 10, 20, 30, 40}
	for q, want := range map[float64]float64{0: 0, 0.25: 10, 0.5: 20, 0.625: 25, 0.99: 39.6, 1: 40} {
		if got := Quantile(sorted, q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := Quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestSpread(t *testing.T) {
	if got := (Stat{N: 3, Median: 10, Least: 8, Most: 15}).Spread(); got != 0.5 {
		t.Errorf("got %v, want 0.5", got)
	}
	if got := (Stat{N: 2, Most: 1}).Spread(); got != 0 {
		t.Errorf("of a median of 0: %v", got)
	}
}

// example is a small run: meshd twice as fast as upstream one way, three times the other way.
func example() *Result {
	r := &Result{
		Machine: Machine{Kernel: "6.1", CPU: "model", Cores: 2, MemoryMB: 1024},
		Options: Options{Rounds: 2, Duration: 1},
		Variants: []Variant{
			{Name: Baseline, About: "upstream"},
			{Name: "a<b", About: "a name that XML cannot hold"},
			{Name: "zerotier", About: "not here", Missing: "no program"},
			{Name: "meshd", About: "this"},
		},
	}
	add := func(variant string, m Metric, values ...float64) {
		for round, v := range values {
			r.Samples = append(r.Samples, Sample{Variant: variant, Metric: m, Round: round, Value: v})
		}
	}
	add(Baseline, TCP(1, 4, true), 1000, 1200)
	add(Baseline, TCP(1, 4, false), 1000, 1000)
	add(Baseline, CPU1, 5, 6)
	add(Baseline, RTT, 0.2)
	add(Baseline, Rate64, 50)
	add("a<b", TCP(1, 4, true), 333.3)
	add("a<b", Off(TCP(1, 4, true)), 111)
	add("meshd", TCP(1, 4, true), 2000, 2100)
	add("meshd", TCP(1, 4, false), 3000, 3000)
	add("meshd", CPU1, 3, 3)
	add("meshd", RTT, 0.3)
	add("meshd", Loss64, 0, 0)
	add("meshd", Rate64, 160)
	add("meshd", Memory, 36, 40)
	add("meshd", UDP1472, 900)
	add("meshd", UDP1200, 1000)
	add(Relayed, TCP(1, 4, true), 2295)
	add(Relayed, CPUMiddle, 0.6)
	add(Forwarded, CPUMiddle, 0.4)
	return r
}

func TestStatPoolsDirections(t *testing.T) {
	got, ok := example().Stat("meshd", TCP1)
	if want := (Stat{4, 2550, 2000, 3000}); !ok || got != want {
		t.Errorf("got %+v, %v; want %+v", got, ok, want)
	}
	if _, ok := example().Stat("meshd", TCP4); ok {
		t.Error("there is no sample of four streams")
	}
	if got, ok := example().Stat("a<b", OffTCP1); !ok || got.Median != 111 {
		t.Errorf("offloads off: got %+v, %v", got, ok)
	}
}

func TestRatio(t *testing.T) {
	r := example()
	if got, ok := r.Ratio("meshd", Baseline, TCP1); !ok || got != 2.55 {
		t.Errorf("got %v, %v; want 2.55", got, ok)
	}
	for _, c := range []struct{ a, b string }{{"meshd", "zerotier"}, {"zerotier", "meshd"}} {
		if _, ok := r.Ratio(c.a, c.b, TCP1); ok {
			t.Errorf("a ratio of %s over %s, one of which was not measured", c.a, c.b)
		}
	}
	if _, ok := r.Ratio("meshd", "meshd", Loss64); ok {
		t.Error("a ratio over 0")
	}
}

func TestJudge(t *testing.T) {
	words := make(map[Metric]string)
	for _, v := range example().Judge("meshd") {
		if v.Over != zeroTier && v.Over != Fitted {
			words[v.Metric] = v.Word()
		} else if v.Known {
			t.Errorf("%s: a verdict without samples", v.What)
		}
	}
	want := map[Metric]string{
		TCP1: "aim", TCP4: "not measured", CPU1: "must", RTT: "missed", Loss64: "aim", CPU64: "not measured",
		Rate64: "must", Memory: "must", largeRatio: "aim",
		relayedRatio: "must", relayCPURatio: "missed",
	}
	if !reflect.DeepEqual(words, want) {
		t.Errorf("got %v\nwant %v", words, want)
	}
}

func TestGoalsAreInOrder(t *testing.T) {
	for _, g := range goals() {
		if g.Least && g.Aim < g.Must || !g.Least && g.Aim > g.Must {
			t.Errorf("%s: the aim is easier than what must be", g.What)
		}
	}
}

func TestWordAtTheLimits(t *testing.T) {
	for _, c := range []struct {
		least bool
		value float64
		want  string
	}{
		{true, 1.8, "aim"},
		{true, 1.79, "must"},
		{true, 1.5, "must"},
		{true, 1.49, "missed"},
		{false, 1.5, "aim"},
		{false, 1.51, "must"},
		{false, 1.8, "must"},
		{false, 1.81, "missed"},
	} {
		g := Goal{Least: c.least, Must: 1.5, Aim: 1.8}
		if !c.least {
			g.Must, g.Aim = g.Aim, g.Must
		}
		if got := (Verdict{Goal: g, Known: true, Value: c.value}).Word(); got != c.want {
			t.Errorf("least %v, value %v: got %q, want %q", c.least, c.value, got, c.want)
		}
	}
}

func TestJSONReadsBack(t *testing.T) {
	var b bytes.Buffer
	if err := example().Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, example()) {
		t.Errorf("got %+v", got)
	}
	if _, err := Read(strings.NewReader("{")); err == nil {
		t.Error("half a document was read")
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got\n%s", path, got)
	}
}

func TestTables(t *testing.T) {
	var b strings.Builder
	if err := example().Tables(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "tables.md", b.String())
}

func TestPlots(t *testing.T) {
	r := example()
	drawn := 0
	for _, p := range Plots() {
		picture, err := r.SVG(p)
		if err != nil {
			t.Fatal(err)
		}
		if picture == "" {
			continue
		}
		drawn++
		words := textOf(t, p.Name, picture)
		for _, v := range r.Variants {
			if s, ok := r.Stat(v.Name, p.Metric); ok && !(slices.Contains(words, v.Name) && slices.Contains(words, number(s.Median))) {
				t.Errorf("%s does not show %s with its %s: %q", p.Name, v.Name, number(s.Median), words)
			}
		}
	}
	if drawn == 0 {
		t.Error("no pictures")
	}
	if got, err := r.SVG(Plot{Metric: TCP4}); got != "" || err != nil {
		t.Errorf("a plot of nothing: %s, %v", got, err)
	}
}

// textOf reads a picture, which must be well-formed, and returns the texts in it.
func textOf(t *testing.T, name, picture string) (words []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(picture))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return words
		}
		if err != nil {
			t.Fatalf("%s is no XML: %v", name, err)
		}
		if text, ok := token.(xml.CharData); ok {
			words = append(words, strings.TrimSpace(string(text)))
		}
	}
}

func TestCurves(t *testing.T) {
	flat, steep := Curve{Name: "flat"}, Curve{Name: "steep"}
	for _, n := range []int{10, 100, 1000} {
		flat.Add(n, 300, 310, 290)
		steep.Add(n, float64(n))
	}
	if flat.Growth() != 1 || steep.Growth() != 100 || (&Curve{}).Growth() != 0 {
		t.Errorf("growth %v, %v", flat.Growth(), steep.Growth())
	}
	flat.Points = flat.Points[:2]
	var b strings.Builder
	if err := CurveTable(&b, "ns by members", []Curve{flat, steep}); err != nil {
		t.Fatal(err)
	}
	const want = `| ns by members | 10       | 100     | 1000     | last over first |
|---------------|----------|---------|----------|-----------------|
| flat          | 300 ±3%  | 300 ±3% | -        | 1.00            |
| steep         | 10.0 ±0% | 100 ±0% | 1000 ±0% | 100.00          |

`
	if got := b.String(); got != want {
		t.Errorf("got\n%s", got)
	}
	picture, err := CurveSVG("cost", "members", "ns", []Curve{flat, steep})
	if err != nil {
		t.Fatal(err)
	}
	words := textOf(t, "curves", picture)
	for _, word := range []string{"flat", "steep", "members", "ns", "cost"} {
		if !slices.Contains(words, word) {
			t.Errorf("the picture does not show %q: %q", word, words)
		}
	}
}

func TestUnits(t *testing.T) {
	for m, want := range map[Metric]string{
		TCP1: "Mbit/s", TCP(4, 6, false): "Mbit/s", OffTCP4: "Mbit/s", CPU1: "CPU s/GB", OffCPU1: "CPU s/GB", RTTLoad: "ms", Rate64: "kpkt/s",
		Loss64: "%", Memory: "MiB", FirstPing: "s", UDP1472: "Mbit/s",
	} {
		if got := m.Unit(); got != want {
			t.Errorf("%s is in %q, want %q", m, got, want)
		}
	}
}
