package api_test

import (
	"strings"
	"testing"

	"meshd/mesh/api"
)

func TestResolve(t *testing.T) {
	list := []api.Named{
		{Name: "laptop", ID: "aaaa1111"},
		{Name: "laptop-old", ID: "aabb2222"},
		{Name: "nas", ID: "cccc3333"},
		{Name: "twin", ID: "dddd4444"},
		{Name: "twin", ID: "eeee5555"},
		{Name: "cccc", ID: "ffff6666"},
	}
	for _, tt := range []struct {
		name, in string
		want     int
		code     api.Code
	}{
		{"whole name before prefix", "laptop", 0, ""},
		{"case does not matter", "LAPTOP", 0, ""},
		{"with the domain", "nas.mesh.internal", 2, ""},
		{"unique prefix of a name", "laptop-", 1, ""},
		{"prefix of two names", "lap", -1, api.CodeAmbiguousName},
		{"whole id", "aabb2222", 1, ""},
		{"unique prefix of an id", "aab", 1, ""},
		{"prefix of two ids", "aa", -1, api.CodeAmbiguousName},
		{"name of two", "twin", -1, api.CodeAmbiguousName},
		{"id of one of them", "eeee5555", 4, ""},
		{"a whole name goes before the prefix of an id", "cccc", 5, ""},
		{"prefix of a name and of an id", "cc", -1, api.CodeAmbiguousName},
		{"nobody", "phone", -1, api.CodeUnknownName},
		{"empty", "", -1, api.CodeUsage},
		{"only the domain", ".mesh.internal", -1, api.CodeUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := api.Resolve(tt.in, list)
			if got != tt.want || api.CodeOf(err) != tt.code {
				t.Errorf("Resolve(%q) = %d, %v; want %d, code %q", tt.in, got, err, tt.want, tt.code)
			}
		})
	}
}

func TestResolveListsAtMostFive(t *testing.T) {
	var list []api.Named
	for range 9 {
		list = append(list, api.Named{Name: "x", ID: "y"})
	}
	_, err := api.Resolve("x", list)
	if err == nil || !strings.HasSuffix(err.Error(), ", 4 more") || strings.Count(err.Error(), `"x" (y)`) != 5 {
		t.Errorf("got %v", err)
	}
}

func TestWords(t *testing.T) {
	const want = "apple bridge candle dragon eagle forest"
	for _, tt := range []struct {
		name string
		in   []string
		ok   bool
	}{
		{"six arguments", strings.Fields(want), true},
		{"one argument", []string{want}, true},
		{"hyphens", []string{"apple-bridge-candle-dragon-eagle-forest"}, true},
		{"capitals, commas, spaces", []string{" Apple, BRIDGE,candle", "dragon  eagle\tforest"}, true},
		{"five", strings.Fields(want)[:5], false},
		{"seven", append(strings.Fields(want), "seven"), false},
		{"none", nil, false},
		{"digits", []string{"apple bridge candle dragon eagle f0rest"}, false},
		{"escape", []string{"apple bridge candle dragon eagle \x1b[2J"}, false},
		{"too long", []string{"apple bridge candle dragon eagle " + strings.Repeat("a", 17)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := api.Words(tt.in...)
			if (err == nil) != tt.ok || tt.ok && got != want {
				t.Errorf("Words(%q) = %q, %v", tt.in, got, err)
			}
			if !tt.ok && api.CodeOf(err) != api.CodeUsage {
				t.Errorf("code %q, want usage", api.CodeOf(err))
			}
		})
	}
}

func TestWaitSpecMet(t *testing.T) {
	s := sample().StatusAnswer
	notReady := s
	notReady.Self.Ready = false
	for _, tt := range []struct {
		name string
		w    api.WaitSpec
		s    *api.Status
		met  bool
		code api.Code
	}{
		{"ready", api.WaitSpec{}, &s, true, ""},
		{"not ready", api.WaitSpec{}, &notReady, false, ""},
		{"three are alive", api.WaitSpec{Peers: 3}, &s, true, ""},
		{"the offline one does not count", api.WaitSpec{Peers: 4}, &s, false, ""},
		{"a direct session", api.WaitSpec{Peer: "laptop"}, &s, true, ""},
		{"a relayed session", api.WaitSpec{Peer: "nas"}, &s, true, ""},
		{"idle is no session", api.WaitSpec{Peer: "tv"}, &s, false, ""},
		{"relayed is not direct", api.WaitSpec{Direct: "nas"}, &s, false, ""},
		{"direct by prefix", api.WaitSpec{Direct: "la"}, &s, true, ""},
		{"nobody yet", api.WaitSpec{Peer: "later"}, &s, false, ""},
		{"ambiguous", api.WaitSpec{Peer: "cccc"}, &s, false, api.CodeAmbiguousName},
		{"all must hold", api.WaitSpec{Peers: 1, Peer: "laptop", Direct: "nas"}, &s, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			met, err := tt.w.Met(tt.s)
			if met != tt.met || api.CodeOf(err) != tt.code {
				t.Errorf("got %v, %v; want %v, code %q", met, err, tt.met, tt.code)
			}
		})
	}
}
