package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
	"unicode"

	"meshd/mesh/api"
	"meshd/mesh/api/apitest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden holds what people and scripts read, by a real socket.
func TestGolden(t *testing.T) {
	n := apitest.Sample(testNow())
	socket := serve(t, n)
	hostile := apitest.Sample(testNow())
	evil := "\x1b[2J\r\nready \u202egnp.exe\x00\xff"
	hostile.StatusAnswer.Network.Name, hostile.StatusAnswer.Peers[0].Name, hostile.StatusAnswer.Peers[1].Endpoint = evil, evil, evil
	hostile.StatusAnswer.Health[0].Text, hostile.HostsAnswer[1].Member, hostile.HostsAnswer[1].MAC = evil, evil, evil
	hostile.RequestsAnswer[0].Name, hostile.RequestsAnswer[0].Words, hostile.InviteAnswer = evil, evil, evil
	hostileSocket := serve(t, hostile)
	empty := serve(t, &apitest.Node{})
	for _, tt := range []struct{ file, args, socket string }{
		{"status", "status", socket},
		{"status.json", "status --json", socket},
		{"status-empty.json", "status --json", empty},
		{"hosts", "hosts", socket},
		{"hosts.json", "hosts --json", socket},
		{"requests", "requests", socket},
		{"requests.json", "requests --json", socket},
		{"requests-empty.json", "requests --json", empty},
		{"ping", "ping laptop -c 3", socket},
		{"ping-relayed", "ping nas -c 1", socket},
		{"ping.ndjson", "ping laptop -c 3 --json", socket},
		{"share", "share", socket},
		{"share.json", "share --json --rate 20mbit --volume 1TB/month", socket},
		{"share-off", "share --off", empty},
		{"invite", "invite", socket},
		{"invite-qr", "invite --qr", socket},
		{"approve", "approve Apple bridge candle dragon eagle forest", socket},
		{"approve.json", "approve apple-bridge-candle-dragon-eagle-forest --json", socket},
		{"deny", "deny apple bridge candle dragon eagle forest", socket},
		{"revoke", "revoke laptop", socket},
		{"revoke.json", "revoke laptop --since 7d --json", socket},
		{"role", "role laptop router dhcp", socket},
		{"role.json", "role laptop vlan=7 --json", socket},
		{"graph", "graph", socket},
		{"graph.json", "graph --json", socket},
		{"hostile-graph", "graph", hostileSocket},
		{"wait", "wait --peers 3", socket},
		{"hostile-status", "status", hostileSocket},
		{"hostile-hosts", "hosts", hostileSocket},
		{"hostile-requests", "requests", hostileSocket},
		{"hostile-invite", "invite", hostileSocket},
	} {
		t.Run(tt.file, func(t *testing.T) {
			r := runIt(t, strings.Fields(tt.args+" --socket "+tt.socket)...)
			if r.status != 0 || r.stderr != "" {
				t.Fatalf("%+v", r)
			}
			if strings.Contains(tt.file, "hostile") && strings.ContainsFunc(r.stdout, func(c rune) bool { return c != '\n' && !unicode.IsPrint(c) }) {
				t.Errorf("what a peer says reaches the terminal: %q", r.stdout)
			}
			golden(t, tt.file, r.stdout)
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
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
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func TestInviteJSON(t *testing.T) {
	socket := serve(t, apitest.Sample(testNow()))
	r := runIt(t, "invite", "--json", "--uses", "3", "--expires", "2d", "--role", "router,bridge", "--socket", socket)
	var i api.Invite
	if err := json.Unmarshal([]byte(r.stdout), &i); err != nil || i.Invite != "meshd1-sample-invite" || i.Uses != 3 || strings.Join(i.Roles, " ") != "bridge member router" {
		t.Errorf("%+v, %v", r, err)
	}
	if left := time.Until(i.Expires); left < 47*time.Hour || left > 48*time.Hour {
		t.Errorf("expires in %v", left)
	}
}

func TestColours(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out, node: &fakeNode{}, now: testNow, getenv: func(string) string { return "" }, style: style{on: true}}
	if status := a.run(t.Context(), []string{"status", "--socket", serve(t, apitest.Sample(testNow()))}); status != 0 {
		t.Fatal(out.String())
	}
	coloured := out.String()
	if !strings.Contains(coloured, "\x1b[32mdirect\x1b[0m") {
		t.Errorf("no colours: %q", coloured)
	}
	plainText := coloured
	for _, c := range []colour{bold, dim, red, green, yellow, cyan, "0"} {
		plainText = strings.ReplaceAll(plainText, "\x1b["+string(c)+"m", "")
	}
	golden(t, "status", plainText)
}

// TestWatch: without a terminal, a watched status prints what changes.
func TestWatch(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out}
	s := apitest.Sample(testNow()).StatusAnswer
	s.Canonical()
	shown, err := a.printChanges(nil, &s, testNow())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "\n"); got != 5 {
		t.Errorf("%d lines at first:\n%s", got, &out)
	}
	out.Reset()
	s.Peers[0].RTTMillis, s.Peers[0].TxBytes = 99, 99 // what changes all the time is not worth a line
	if shown, err = a.printChanges(shown, &s, testNow()); err != nil || out.Len() > 0 {
		t.Errorf("nothing has changed: %q", &out)
	}
	s.Peers[2].State, s.Peers[2].Transport, s.Peers[2].Endpoint = api.StateDirect, "udp4", "192.0.2.1:5"
	if _, err = a.printChanges(shown, &s, testNow()); err != nil || out.String() != "2026-01-02T03:04:05Z  peer  phone  fd12:3456:789a::4  direct  udp4 192.0.2.1:5\n" {
		t.Errorf("%q, %v", &out, err)
	}
}

func TestCompletion(t *testing.T) {
	for shell, want := range map[string]string{"bash": "__start_meshd", "zsh": "#compdef meshd", "fish": "complete -c meshd", "powershell": "Register-ArgumentCompleter"} {
		if r := runIt(t, "completion", shell); r.status != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("%s: status %d, %d bytes", shell, r.status, len(r.stdout))
		}
	}
	n := apitest.Sample(testNow())
	n.StatusAnswer.Peers[3].Name = "\x1b[2J"
	socket := serve(t, n)
	for _, tt := range []struct{ args, want string }{
		{"__complete ping --socket SOCKET |", "laptop\tdirect\nnas\trelayed\nphone\toffline\n:4\n"},
		{"__complete wait --socket SOCKET --peer |", "laptop\tdirect\nnas\trelayed\nphone\toffline\n:4\n"},
		{"__complete approve --socket SOCKET |", "apple\ttablet\n:4\n"},
		{"__complete approve --socket SOCKET apple bridge |", "candle\ttablet\n:4\n"},
		{"__complete approve --socket SOCKET other |", ":4\n"},
		{"__complete ping --socket /nonexistent |", ":4\n"},
		{"__complete invite --role r|", ":4\n"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Fields(strings.ReplaceAll(tt.args, "SOCKET", socket))
			args[len(args)-1] = strings.TrimSuffix(args[len(args)-1], "|")
			r := runIt(t, args...)
			if r.status != 0 || !strings.HasSuffix(r.stdout, tt.want) || strings.HasPrefix(tt.want, ":") && strings.Contains(tt.args, "SOCKET") && r.stdout != tt.want {
				t.Errorf("status %d, %q, want %q", r.status, r.stdout, tt.want)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	r := runIt(t, "version", "--json")
	var b build
	if err := json.Unmarshal([]byte(r.stdout), &b); err != nil || r.status != 0 || b.Version == "" || b.Go == "" || b.OS == "" || b.Arch == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if r := runIt(t, "version"); r.status != 0 || !strings.HasPrefix(r.stdout, "meshd ") || strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("%+v", r)
	}
	if r := runIt(t, "--version"); r.status != 0 || r.stdout != "meshd "+version()+"\n" {
		t.Errorf("%+v", r)
	}
	setting := func(k, v string) debug.BuildSetting { return debug.BuildSetting{Key: k, Value: v} }
	for _, tt := range []struct {
		name string
		info debug.BuildInfo
		want string
	}{
		{"released", debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, "v1.2.3"},
		{"without git", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "devel"},
		{"with git", debug.BuildInfo{Settings: []debug.BuildSetting{setting("vcs.revision", "0123456789abcdef0123"), setting("vcs.modified", "true")}}, "devel-0123456789ab-dirty"},
	} {
		if got := buildOf(&tt.info); got.Version != tt.want {
			t.Errorf("%s: %q", tt.name, got.Version)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{byteCount(0), "0 B"},
		{byteCount(1023), "1023 B"},
		{byteCount(1536), "1.5 KiB"},
		{byteCount(1 << 62), "4096.0 PiB"},
		{bitRate(999), "999 bit/s"},
		{bitRate(12_340_000), "12.3 Mbit/s"},
		{millis(0), "-"},
		{millis(0.123), "0.12 ms"},
		{millis(12.34), "12.3 ms"},
		{millis(1234), "1.23 s"},
		{age(-1), "0s"},
		{age(59 * time.Second), "59s"},
		{age(90 * time.Second), "1m30s"},
		{age(90 * time.Minute), "1h30m"},
		{age(50 * time.Hour), "2d2h"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// FuzzClean: whatever a peer calls itself, only printable characters reach the terminal, and what is printable stays.
func FuzzClean(f *testing.F) {
	f.Add("laptop")
	f.Add("\x1b]0;x\x07\u202e\u2028\xff\U000e0001")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", got)
		}
		if clean(got) != got {
			t.Errorf("%q is cleaned again", got)
		}
	})
}

// FuzzConfig: no configuration file brings the reader down, and each key has a value for a flag.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("name = \"a\"\njoin = [\"a\", \"b\"]\nmtu = 1400\n[x]\ny=1\n"))
	f.Add([]byte("a.b = 1\n\"q k\" = 1.5\n# c\n'l' = false\nt = 2026-01-02\n"))
	f.Add([]byte("x = \"\"\"\nname = 1\n\"\"\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		settings, err := parseConfig(text)
		if err != nil {
			return
		}
		for _, s := range settings {
			if !s.list && len(s.values) != 1 || s.line < 0 || s.line > bytes.Count(text, []byte("\n"))+1 {
				t.Errorf("%+v", s)
			}
		}
	})
}
