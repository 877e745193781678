package stream

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSSH(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string // ssh's arguments after -T and BatchMode; nil: an error
	}{
		{"ssh://user@home", []string{"-l", "user", "--", "home", "meshd", "stdio"}},
		{"ssh://home", []string{"--", "home", "meshd", "stdio"}},
		{"ssh://home/", []string{"--", "home", "meshd", "stdio"}},
		{"ssh://user@home:2222", []string{"-p", "2222", "-l", "user", "--", "home", "meshd", "stdio"}},
		{"ssh://user@[2001:db8::1]:22", []string{"-p", "22", "-l", "user", "--", "2001:db8::1", "meshd", "stdio"}},
		{"ssh://user:secret@home", nil},
		{"ssh://", nil},
		{"ssh://user@", nil},
		{"ssh://-oProxyCommand=reboot", nil},
		{"ssh://-l@home", nil},
		{"ssh://home/path", nil},
		{"ssh://home?x", nil},
		{"ssh://home#x", nil},
		{"ssh://home:port", nil},
		{"ssh://ho%20me", nil},
		{"ssh://a%0ab@home", nil},
		{"https://home", nil},
		{"home", nil},
	} {
		s, err := ParseSSH(c.text)
		if (err == nil) != (c.want != nil) {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if err != nil {
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the password is shown: %v", err)
			}
			continue
		}
		if got := s.args()[3:]; !slices.Equal(got, c.want) {
			t.Errorf("%s: ssh %q, want %q", c.text, got, c.want)
		}
		s.Terminal = true
		if slices.Contains(s.args(), "BatchMode=yes") {
			t.Errorf("%s: ssh may not ask on a terminal", c.text)
		}
		if again, err := ParseSSH(s.String()); err != nil || again.Host != s.Host || again.Port != s.Port || again.User != s.User {
			t.Errorf("%s is written as %s: %v", c.text, s, err)
		}
	}
}

// FuzzParseSSH holds that no option of ssh comes of a target.
func FuzzParseSSH(f *testing.F) {
	f.Add("ssh://user@home:22")
	f.Add("ssh://-oX=y@home")
	f.Add("ssh://%2dl@[::1]")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSSH(text)
		if err != nil {
			return
		}
		for i, arg := range s.args() {
			known := slices.Contains([]string{"-T", "-o", "-p", "-l", "--"}, arg)
			if strings.HasPrefix(arg, "-") && !known || strings.ContainsAny(arg, "\x00\n") {
				t.Errorf("%q: argument %d is %q", text, i, arg)
			}
		}
	})
}

// shell runs a script in the place of ssh.
func shell(t *testing.T, script string) (*pipe, error) {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a shell")
	}
	p, err := startPipe(SSH{Host: "home"}, exec.Command(sh, "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, p.awaitPreamble()
}

func TestPreamble(t *testing.T) {
	long := strings.Repeat("x", 3<<10)
	for _, c := range []struct{ name, script, want string }{
		{"at once", "echo meshd/1 stdio; cat", ""},
		{"after a greeting", "echo welcome; echo; printf 'no newline: '; echo meshd/1 stdio; cat", ""},
		{"after a long greeting", "for i in 1 2 3; do echo " + long + "; done; echo meshd/1 stdio; cat", ""},
		{"never", "echo 'meshd: stream: no daemon answers' >&2; exit 3", "ended"},
		{"somebody else", "yes", "something else"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := shell(t, c.script)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Write([]byte("datagram")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			n, err := p.Read(b)
			if err != nil || string(b[:n]) != "datagram" {
				t.Errorf("got %q, %v", b[:n], err)
			}
		})
	}
	p, _ := shell(t, "echo one >&2; echo the last words >&2; echo >&2; exit 1")
	if got := p.stderr.last(); got != "the last words" {
		t.Errorf("the last words are %q", got)
	}
}

// Closing ends a program that does not want to end.
func TestPipeEnds(t *testing.T) {
	p, err := shell(t, "trap '' TERM PIPE HUP; echo meshd/1 stdio; while :; do sleep 1; done")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = p.Close()
	if took := time.Since(began); took > endPatience+3*time.Second {
		t.Errorf("it took %v", took)
	}
	select {
	case <-p.ended:
	default:
		t.Error("the program runs on")
	}
}

func TestNoSSHProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := (SSH{Host: "home"}).Dial(context.Background()); err == nil || !strings.Contains(err.Error(), "run ssh") {
		t.Errorf("got %v", err)
	}
}
