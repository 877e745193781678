package meshd_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// below says what each package may import of the module: itself and what is
// below it (ARCHITECTURE.md, "Packages").
var below = map[string][]string{
	"keys":          {},
	"l2":            {},
	"nat-traversal": {},
	"peer":          {"keys", "nat-traversal"},
	"mesh":          {"keys", "l2", "nat-traversal", "peer"},
	"cmd":           {"keys", "l2", "mesh", "integration"},
	"packaging":     {},
	"integration":   {"keys", "l2", "mesh"},
	"bench":         {"keys", "l2", "peer", "mesh", "integration"},
	"examples":      {"keys", "l2", "mesh", "integration"},
}

// TestLayering holds that imports point down. It reads the sources: `go list`
// answers could come from a cache of an earlier state.
func TestLayering(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || !strings.Contains(path, string(filepath.Separator)) {
			return err
		}
		layer, _, _ := strings.Cut(filepath.ToSlash(path), "/")
		if layer == "tools" {
			return nil
		}
		allowed, known := below[layer]
		if !known {
			t.Errorf("%s: the folder %q has no place in the layering", path, layer)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			inside, ok := strings.CutPrefix(name, "meshd/")
			if !ok {
				continue
			}
			to, _, _ := strings.Cut(inside, "/")
			if layer == "integration" && strings.HasSuffix(path, "_test.go") {
				continue // a test may speak as an attacker does, below everything
			}
			if to != layer && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s: %s is not below %s", path, name, to, layer)
			}
			checked++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 20 {
		t.Fatalf("only %d imports were looked at", checked)
	}
}
