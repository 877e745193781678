package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/mesh/api/apitest"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

const seeUp = "see meshd up --help\n"

// TestWrongUsage holds status and words of every way to write a command wrongly.
func TestWrongUsage(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		stderr     string
	}{
		{"no such command", "frob", "meshd: \"frob\": no such command\nmeshd --help lists the commands\n"},
		{"nearly a command", "stauts", "meshd: \"stauts\": no such command\ndid you mean meshd status?\n"},
		{"escape in a command", "fr\x1bob", "meshd: \"fr\\x1bob\": no such command\nmeshd --help lists the commands\n"},
		{"no such help", "help frob", "meshd: \"frob\": no such command\nmeshd --help lists the commands\n"},
		{"no such flag", "up --frob", "meshd: --frob: no such flag\n" + seeUp},
		{"no such short flag", "status -z", "meshd: -z: no such flag\nsee meshd status --help\n"},
		{"later flag", "up --metrics=:1", "meshd: --metrics: this version of meshd does not have it yet\n" + seeUp},
		{"later flag elsewhere", "status --metrics=:1", "meshd: --metrics: no such flag\nsee meshd status --help\n"},
		{"bridge without a TAP", "up --bridge br0 --no-tap", "meshd: --bridge: without a TAP there is nothing to put into a bridge\nleave out --no-tap\n"},
		{"bridge of itself", "up --bridge mesh0", "meshd: --bridge: that is the TAP itself\nname a bridge, or the interface of the LAN\n"},
		{"bridge that cannot be", "up --bridge ../x", "meshd: --bridge: \"../x\" cannot name an interface\n" + seeUp},
		{"value missing", "up --mtu", "meshd: --mtu: its value is missing\n" + seeUp},
		{"no number", "up --mtu x", "meshd: --mtu: \"x\" is not of the right kind (int)\n" + seeUp},
		{"no yes or no", "up --no-tap=7", "meshd: --no-tap: \"7\" is not of the right kind (bool)\n" + seeUp},
		{"argument to up", "up home", "meshd: up: it takes no argument, and \"home\" is one\n" + seeUp},
		{"argument to status", "status x", "meshd: status: it takes no argument, and \"x\" is one\nsee meshd status --help\n"},
		{"MTU too small", "up --mtu 1279", "meshd: --mtu: 1279 is not from 1280 to 9000\n" + seeUp},
		{"MTU too large", "up --mtu 9001", "meshd: --mtu: 9001 is not from 1280 to 9000\n" + seeUp},
		{"MTU negative", "up --mtu=-1", "meshd: --mtu: -1 is not from 1280 to 9000\n" + seeUp},
		{"MTU of another's network", "up --mtu 1400 --join h", "meshd: --mtu: the network that you join has its own\nleave it out\n"},
		{"listen without port", "up --listen 192.0.2.1", "meshd: --listen: \"192.0.2.1\" is not ADDR:PORT\n" + seeUp},
		{"listen at a port", "up --listen 51830", "meshd: --listen: \"51830\" is not ADDR:PORT\n" + seeUp},
		{"listen at a name", "up --listen home:1", "meshd: --listen: \"home\" is not an address of this host\n" + seeUp},
		{"listen at a large port", "up --listen :65536", "meshd: --listen: \":65536\": the port \"65536\" is not from 0 to 65535\n" + seeUp},
		{"listen at no port", "up --listen :x", "meshd: --listen: \":x\": the port \"x\" is not from 0 to 65535\n" + seeUp},
		{"listen at many", "up --listen [ff02::1]:1", "meshd: --listen: \"ff02::1\" is a multicast address\n" + seeUp},
		{"advertise without port", "up --advertise home", "meshd: --advertise: \"home\" is not HOST:PORT\n" + seeUp},
		{"advertise port 0", "up --advertise home:0", "meshd: --advertise: \"home:0\": the port \"0\" is not from 1 to 65535\n" + seeUp},
		{"advertise all", "up --advertise 0.0.0.0:1", "meshd: --advertise: \"0.0.0.0:1\": 0.0.0.0 cannot be reached\n" + seeUp},
		{"advertise no host", "up --advertise :1", "meshd: --advertise: \":1\" is not HOST:PORT\n" + seeUp},
		{"stun without port", "up --stun s.example", "meshd: --stun: \"s.example\" is not HOST:PORT\n" + seeUp},
		{"name with a dot", "up --name a.b", "meshd: --name: name \"a.b\" has '.'; allowed are a-z, 0-9 and hyphens\n" + seeUp},
		{"name in capitals", "up --name Home", "meshd: --name: name \"Home\" has 'H'; allowed are a-z, 0-9 and hyphens\n" + seeUp},
		{"TAP without name", "up --tap=", "meshd: --tap: the interface's name is empty\n" + seeUp},
		{"TAP with a long name", "up --tap abcdefghijklmnop", "meshd: --tap: the interface's name \"abcdefghijklmnop\" has more than 15 bytes\n" + seeUp},
		{"TAP with a path", "up --tap ../x", "meshd: --tap: \"../x\" cannot name an interface\n" + seeUp},
		{"TAP with a pattern", "up --tap mesh%d", "meshd: --tap: \"mesh%d\" cannot name an interface\n" + seeUp},
		{"TAP called dots", "up --tap ..", "meshd: --tap: \"..\" cannot name an interface\n" + seeUp},
		{"prefix of IPv4", "up --prefix 10.0.0.0/8", "meshd: --prefix: \"10.0.0.0/8\" is not an IPv6 prefix like fd12:3456:789a::/64\n" + seeUp},
		{"prefix too short", "up --prefix fd00::/48", "meshd: --prefix: \"fd00::/48\" is not a /64\n" + seeUp},
		{"prefix with more", "up --prefix fd00::1/64", "meshd: --prefix: \"fd00::1/64\" has bits beyond the prefix\ndid you mean fd00::/64?\n"},
		{"prefix of links", "up --prefix fe80::/64", "meshd: --prefix: \"fe80::/64\" cannot be a segment's\n" + seeUp},
		{"prefix of another's network", "up --prefix fd00::/64 --join h", "meshd: --prefix: the network that you join has its own\nleave it out\n"},
		{"log level", "up --log-level loud", "meshd: --log-level: \"loud\" is not debug, info, warn or error\n" + seeUp},
		{"log format", "up --log-format xml", "meshd: --log-format: \"xml\" is not text or json\n" + seeUp},
		{"join over ssh with a password", "up --join ssh://u:p@h", "meshd: --join: a password does not belong there: use a key, or let ssh ask for it\ngive ssh://user@host, with :port where it is not the usual one\n"},
		{"join over ssh to nowhere", "up --join ssh://", "meshd: --join: it is not ssh://[USER@]HOST[:PORT]\ngive ssh://user@host, with :port where it is not the usual one\n"},
		{"listen-tls", "up --listen-tls 443", "meshd: --listen-tls: \"443\" is not ADDR:PORT\nsee meshd up --help\n"},
		{"join nothing", "up --join=", "meshd: --join: \"\": a host's name has 1 to 253 bytes\n" + giveHost},
		{"join a web page", "up --join https://h", "meshd: --join: \"https://h\": the port \"//h\" is not from 1 to 65535\n" + giveHost},
		{"join half an address", "up --join 10.0.0.256", "meshd: --join: \"10.0.0.256\": \"10.0.0.256\" is neither an address nor a host's name\n" + giveHost},
		{"join port 0", "up --join h:0", "meshd: --join: \"h:0\": the port \"0\" is not from 1 to 65535\n" + giveHost},
		{"join nobody", "up --join ::", "meshd: --join: \"::\": :: cannot be reached\n" + giveHost},
		{"join what is too long to show", "up --join " + strings.Repeat("x", 300), "meshd: --join: it is neither a host nor an invite\n" + giveHost},
		{"empty state", "status --state=", "meshd: --state: the folder's name is empty\nsee meshd status --help\n"},
		{"empty socket", "status --socket=", "meshd: --socket: the path is empty\nsee meshd status --help\n"},
		{"ping nobody", "ping", "meshd: ping: NAME is missing\nsee meshd ping --help\n"},
		{"ping two", "ping a b", "meshd: ping: it takes one NAME, and \"b\" is another argument\nsee meshd ping --help\n"},
		{"ping an empty name", "ping ", "meshd: find member: the name is empty\nsee meshd ping --help\n"},
		{"ping less than none", "ping a -c -1", "meshd: --count: -1 is negative\nsee meshd ping --help\n"},
		{"approve nothing", "approve", "meshd: read words: there are 0 words, and must be 6\nmeshd requests lists them\n"},
		{"approve a name", "approve laptop", "meshd: read words: there are 1 words, and must be 6\nmeshd requests lists them\n"},
		{"revoke nobody", "revoke", "meshd: revoke: NAME is missing\nsee meshd revoke --help\n"},
		{"revoke in the future", "revoke x --since 2999-01-01T00:00:00Z", "meshd: --since: 2999-01-01T00:00:00Z is in the future\nsee meshd revoke --help\n"},
		{"revoke some time", "revoke x --since lately", "meshd: --since: \"lately\" is no date (2026-11-01), time (2026-11-01T12:00:00Z), span (7d) or all\nsee meshd revoke --help\n"},
		{"role of none", "role x", "meshd: role: NAME and at least one ROLE are wanted\nsee meshd role --help\n"},
		{"role unknown", "role x king", "meshd: role: parse role \"king\": want member, admin, router, dhcp, bridge or vlan=LIST\nsee meshd role --help\n"},
		{"deny digits", "deny a b c d e 6", "meshd: read words: \"6\" is not such a word\nmeshd requests lists them\n"},
		{"invite for ever", "invite --expires 0", "meshd: --expires: \"0\" is not a duration like 30m, 24h or 7d\nsee meshd invite --help\n"},
		{"invite for a past", "invite --expires=-1h", "meshd: --expires: \"-1h\" is not a duration like 30m, 24h or 7d\nsee meshd invite --help\n"},
		{"invite for too long", "invite --expires 400d", "meshd: invite: it would expire after 9600h0m0s, and must after at least a moment and at most 366 days\nsee meshd invite --help\n"},
		{"invite for no use", "invite --uses 0", "meshd: invite: uses is 0, and must be from 1 to 10000\nsee meshd invite --help\n"},
		{"invite a king", "invite --role king", "meshd: invite: parse role \"king\": want member, admin, router, dhcp, bridge or vlan=LIST\nsee meshd invite --help\n"},
		{"wait for less than none", "wait --peers=-1", "meshd: wait: peers is -1, and cannot be negative\nsee meshd wait --help\n"},
		{"wait for an empty name", "wait --peer=", "meshd: --peer: the name is empty\nsee meshd wait --help\n"},
		{"wait less than no time", "wait --timeout=-1s", "meshd: wait: the timeout is -1s, and cannot be negative\nsee meshd wait --help\n"},
		{"completion for nothing", "completion", "meshd: completion: SHELL is missing\nsee meshd completion --help\n"},
		{"completion for tcsh", "completion tcsh", "meshd: completion: \"tcsh\" is none of bash, zsh, fish, powershell\nsee meshd completion --help\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &fakeNode{}
			r := runWith(t, n, "", strings.Split(tt.args, " ")...)
			if r.status != 2 || r.stderr != tt.stderr || r.stdout != "" {
				t.Errorf("status %d\nstderr %q\nwant   %q\nstdout %q", r.status, r.stderr, tt.stderr, r.stdout)
			}
			if n.got.Name != "" {
				t.Error("the node was started")
			}
		})
	}
}

const giveHost = "give HOST[:PORT], ssh://user@host, the line that meshd invite prints, or - to read it from stdin\n"

// TestNoCommand: without a command there is help, on stderr.
func TestNoCommand(t *testing.T) {
	if r := runIt(t); r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, "Available Commands") {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{"--help"}, {"help"}, {"help", "up"}, {"up", "-h"}} {
		if r := runIt(t, args...); r.status != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Usage:") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// TestBadInvites: what is wrong with a paper is a failure and not wrong usage; the secret is in no message.
func TestBadInvites(t *testing.T) {
	invite := testInvite(t)
	middle := len(invite) / 2
	other := "A"
	if invite[middle] == 'A' {
		other = "B"
	}
	for name, bad := range map[string]string{
		"cut":           invite[:len(invite)-5],
		"only a prefix": "meshd1-",
		"mistyped":      invite[:middle] + other + invite[middle+1:],
		"longer":        invite + "AAAA",
	} {
		for _, from := range []string{"argument", "stdin"} {
			t.Run(name+" by "+from, func(t *testing.T) {
				n := &fakeNode{}
				join, stdin := bad, ""
				if from == "stdin" {
					join, stdin = "-", bad+"\n"
				}
				r := runWith(t, n, stdin, "up", "--join", join)
				if r.status != 1 || strings.Count(r.stderr, "\n") != 2 || !strings.HasPrefix(r.stderr, "meshd: --join: invite: ") {
					t.Errorf("status %d, %q", r.status, r.stderr)
				}
				if len(bad) > 20 && strings.Contains(r.stderr, bad[:20]) {
					t.Error("the invite is in the message")
				}
				if n.got.Name != "" {
					t.Error("the node was started")
				}
			})
		}
	}
	t.Run("expired by the clock here, which may be wrong: its signer is asked", func(t *testing.T) {
		if err := checkInvite(invite, testNow().Add(25*time.Hour)); err != nil {
			t.Error(err)
		}
	})
	t.Run("two", func(t *testing.T) {
		r := runIt(t, "up", "--join", invite, "--join", invite)
		if r.status != 2 || !strings.HasPrefix(r.stderr, "meshd: --join: more than one invite was given\n") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("empty stdin", func(t *testing.T) {
		r := runWith(t, &fakeNode{}, "\n \n", "up", "--join", "-")
		if r.status != 2 || r.stderr != "meshd: --join -: stdin is empty\npipe the line that meshd invite prints into it\n" {
			t.Errorf("%+v", r)
		}
	})
}

// TestNoDaemonAnswers holds the status of every command that needs one.
func TestNoDaemonAnswers(t *testing.T) {
	const words = "a b c d e f"
	for _, args := range []string{"status", "status --json", "status --watch", "hosts", "requests", "share", "share --off", "ping x", "invite", "wait", "approve " + words, "deny " + words, "down", "revoke x", "role x member", "leave", "leave --force"} {
		t.Run(args, func(t *testing.T) {
			n := &fakeNode{}
			r := runWith(t, n, "", strings.Fields(args+" --socket /nonexistent/s")...)
			want := fmt.Sprintf("meshd: %s: no daemon answers at /nonexistent/s\nstart one with meshd up, or name another with --socket or --state\n", strings.Fields(args)[0])
			if r.status != 3 || r.stderr != want || r.stdout != "" {
				t.Errorf("status %d, %q", r.status, r.stderr)
			}
			if len(n.cleaned) > 0 {
				t.Error("cleaned up where there never was a node")
			}
		})
	}
}

// TestErrorsOfTheDaemon holds how its errors come out.
func TestErrorsOfTheDaemon(t *testing.T) {
	n := apitest.Sample(testNow())
	n.Replies = 0
	socket := serve(t, n)
	for _, tt := range []struct {
		args   string
		status int
		stderr string
	}{
		{"ping nobody", 1, "meshd: find member \"nobody\": no member has that name or id\nmeshd status lists the members\n"},
		{"ping cccc", 2, "meshd: find member \"cccc\": it could be \"nas\" (cccc3333), \"tv\" (cccc5555)\ngive more of the name, or an id\n"},
		{"ping laptop -c 2", 4, "meshd: ping \"laptop\": none of 2 was answered\nmeshd status shows how it is connected\n"},
		{"wait --peers 9 --timeout 20ms", 4, "meshd: wait: not after 20ms: 3 of 9 members are alive\nmeshd status shows how things are\n"},
		{"wait --peer cccc --timeout 20ms", 2, "meshd: find member \"cccc\": it could be \"nas\" (cccc3333), \"tv\" (cccc5555)\ngive more of the name, or an id\n"},
		{"approve a b c d e f", 1, "meshd: approve: nobody shows these words\nmeshd requests lists who waits\n"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			r := runIt(t, strings.Fields(tt.args+" --socket "+socket)...)
			if r.status != tt.status || r.stderr != tt.stderr {
				t.Errorf("status %d, %q\nwant %d, %q", r.status, r.stderr, tt.status, tt.stderr)
			}
		})
	}
}

// TestBadConfig holds the errors of configuration files.
func TestBadConfig(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "name = \"a\"\n\nfrob = 1\n", `line 3: unknown key "frob"`},
		{"key of a later version", "metrics = \"x\"\n", `line 1: unknown key "metrics"`},
		{"table", "[up]\nname = \"a\"\n", `line 1: key "up": it is a table, and no flag is`},
		{"config in config", "config = \"x\"\n", `line 1: unknown key "config"`},
		{"detach", "detach = true\n", `line 1: unknown key "detach"`},
		{"wrong kind", "# comment\nmtu = \"big\"\n", `line 2: key "mtu": "big" is not of the right kind (int)`},
		{"list for one", "name = [\"a\", \"b\"]\n", `line 1: key "name": it is a list, and --name takes one value`},
		{"time", "name = 2026-01-02T03:04:05Z\n", `line 1: key "name": no flag takes a value like 2026-01-02 03:04:05 +0000 UTC`},
		{"list in list", "join = [[\"a\"]]\n", `line 1: key "join": no flag takes a value like [a]`},
		{"twice", "mtu = 1400\nmtu = 1500\n", `line 2: Key 'mtu' has already been defined.`},
		{"no TOML", "name = \n", `line 1: expected value but found '\n' instead`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.toml")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			n := &fakeNode{}
			r := runWith(t, n, "", "up", "--config", file)
			want := fmt.Sprintf("meshd: read config %q: %s\nthe keys are the flags of meshd up: see meshd up --help\n", file, tt.want)
			if r.status != 2 || r.stderr != want || n.got.Name != "" {
				t.Errorf("status %d\n%q\nwant\n%q", r.status, r.stderr, want)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		r := runIt(t, "up", "--config", "/nonexistent")
		if r.status != 2 || r.stderr != "meshd: read config \"/nonexistent\": no such file or directory\nsee meshd up --help\n" {
			t.Errorf("%+v", r)
		}
	})
}
