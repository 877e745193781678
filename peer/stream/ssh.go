package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	// Preamble is the line with which `meshd stdio` begins. What a login shell
	// says before it is skipped, up to maxPreamble bytes.
	Preamble    = "meshd/1 stdio\n"
	maxPreamble = 64 << 10
	// endPatience is how long ssh may take to end by itself.
	endPatience = 2 * time.Second
)

// SSH is where to run `meshd stdio` by ssh.
type SSH struct {
	User, Host, Port string // the user and the port may be empty
	Terminal         bool   // ssh may ask the user
}

// ParseSSH reads ssh://[USER@]HOST[:PORT].
func ParseSSH(text string) (SSH, error) {
	u, err := url.Parse(text)
	if err != nil {
		return SSH{}, errors.New("it is not ssh://[USER@]HOST[:PORT]")
	}
	_, password := u.User.Password()
	s := SSH{User: u.User.Username(), Host: u.Hostname(), Port: u.Port()}
	switch {
	case u.Scheme != "ssh" || s.Host == "" || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return SSH{}, errors.New("it is not ssh://[USER@]HOST[:PORT]")
	case password:
		return SSH{}, errors.New("a password does not belong there: use a key, or let ssh ask for it")
	case strings.HasPrefix(s.Host, "-") || strings.HasPrefix(s.User, "-") || strings.ContainsFunc(s.Host+s.User, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return SSH{}, errors.New("user or host cannot be one")
	}
	return s, nil
}

// String is the target as a URL.
func (s SSH) String() string {
	u := url.URL{Scheme: "ssh", Host: s.Host}
	if strings.Contains(s.Host, ":") {
		u.Host = "[" + s.Host + "]"
	}
	if s.Port != "" {
		u.Host += ":" + s.Port
	}
	if s.User != "" {
		u.User = url.User(s.User)
	}
	return u.String()
}

// args are those of ssh. The user's own configuration holds for all else.
func (s SSH) args() []string {
	args := []string{"-T"}
	if !s.Terminal {
		args = append(args, "-o", "BatchMode=yes")
	}
	if s.Port != "" {
		args = append(args, "-p", s.Port)
	}
	if s.User != "" {
		args = append(args, "-l", s.User)
	}
	return append(args, "--", s.Host, "meshd", "stdio")
}

// Dial runs ssh and returns when `meshd stdio` has begun at the other end.
func (s SSH) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	p, err := startPipe(s, exec.Command("ssh", s.args()...))
	if err != nil {
		return nil, fmt.Errorf("run ssh: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Close() })
	err = p.awaitPreamble()
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		_ = p.Close()
		if last := p.stderr.last(); last != "" {
			err = errors.New(last)
		}
		return nil, fmt.Errorf("%v: %w", s, err)
	}
	return p, nil
}

// pipe is a program at whose standard streams a stream is.
type pipe struct {
	to      SSH
	cmd     *exec.Cmd
	in      *os.File // of the program
	out     *os.File
	r       *bufio.Reader
	stderr  tail
	closing sync.Once
	ended   chan struct{}
}

// startPipe runs a program. The pipes are files of our own, so that reads and
// writes have deadlines.
func startPipe(to SSH, cmd *exec.Cmd) (*pipe, error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), in.Close())
	}
	p := &pipe{to: to, cmd: cmd, in: in, out: out, r: bufio.NewReader(out), ended: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirIn, theirOut, &p.stderr
	cmd.WaitDelay = endPatience
	err = cmd.Start()
	_, _ = theirIn.Close(), theirOut.Close()
	if err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	go func() {
		_ = cmd.Wait() // what it had to say is in stderr
		close(p.ended)
	}()
	return p, nil
}

// awaitPreamble skips what comes before the stream.
func (p *pipe) awaitPreamble() error {
	for skipped := 0; skipped < maxPreamble; {
		line, err := p.r.ReadSlice('\n')
		if bytes.HasSuffix(line, []byte(Preamble)) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			<-p.ended // with its last words
			return errors.New("ssh ended before meshd began there")
		}
		skipped += len(line)
	}
	return errors.New("something else than meshd talks there")
}

// Read implements io.Reader.
func (p *pipe) Read(b []byte) (int, error) { return p.r.Read(b) }

// Write implements io.Writer.
func (p *pipe) Write(b []byte) (int, error) { return p.in.Write(b) }

// SetReadDeadline ends reads.
func (p *pipe) SetReadDeadline(t time.Time) error { return p.out.SetReadDeadline(t) }

// SetWriteDeadline ends writes.
func (p *pipe) SetWriteDeadline(t time.Time) error { return p.in.SetWriteDeadline(t) }

// Describe is what the stream leads to.
func (p *pipe) Describe() string { return p.to.String() }

// Close ends the program and waits for it.
func (p *pipe) Close() error {
	p.closing.Do(func() {
		_, _ = p.in.Close(), p.out.Close()
		select {
		case <-p.ended:
		case <-time.After(endPatience):
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	})
	return nil
}

// tail keeps the end of what a program says.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	const most = 2 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - most; over > 0 {
		t.text = t.text[:copy(t.text, t.text[over:])]
	}
	return len(b), nil
}

// last is the last line that is not empty.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
