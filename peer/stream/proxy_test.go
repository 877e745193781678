package stream

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		name, address, want string
		env                 map[string]string
	}{
		{"none", "home.example:443", "", nil},
		{"https", "home.example:443", "http://p:8080", map[string]string{"HTTPS_PROXY": "http://p:8080"}},
		{"lower case", "home.example:443", "http://p:8080", map[string]string{"https_proxy": "http://p:8080"}},
		{"without scheme", "home.example:443", "http://p:8080", map[string]string{"HTTPS_PROXY": "p:8080"}},
		{"all", "home.example:443", "socks5://p:1080", map[string]string{"ALL_PROXY": "socks5://p:1080"}},
		{"https before all", "home.example:443", "http://h:1", map[string]string{"ALL_PROXY": "socks5://p:1080", "HTTPS_PROXY": "http://h:1"}},
		{"not for this host", "home.example:443", "", map[string]string{"HTTPS_PROXY": "http://p:8080", "NO_PROXY": "example"}},
		{"not for this network", "10.1.2.3:443", "", map[string]string{"HTTPS_PROXY": "http://p:8080", "no_proxy": "10.0.0.0/8"}},
		{"IPv6", "[2001:db8::1]:443", "http://p:8080", map[string]string{"HTTPS_PROXY": "http://p:8080"}},
		{"http only", "home.example:443", "", map[string]string{"HTTP_PROXY": "http://p:8080"}},
	} {
		by, err := Environment(func(k string) string { return c.env[k] })(c.address)
		got := ""
		if by != nil {
			got = by.String()
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

// fakeProxy is an HTTP proxy that answers with a status and then echoes.
func fakeProxy(t *testing.T, status, more string, asked chan<- *http.Request) DialTCP {
	return func(context.Context, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			r, err := http.ReadRequest(bufio.NewReader(theirs))
			if err != nil {
				return
			}
			asked <- r
			_, _ = io.WriteString(theirs, "HTTP/1.1 "+status+"\r\n\r\n"+more)
			_, _ = io.Copy(theirs, theirs)
		}()
		t.Cleanup(func() { _ = ours.Close() })
		return ours, nil
	}
}

func TestHTTPProxy(t *testing.T) {
	env := Environment(func(k string) string {
		return map[string]string{"HTTPS_PROXY": "http://user:s3cret@proxy.example:8080"}[k]
	})
	asked := make(chan *http.Request, 1)
	conn, err := Through(env, fakeProxy(t, "200 Connection established", "early", asked))(t.Context(), "home.example:443")
	if err != nil {
		t.Fatal(err)
	}
	r := <-asked
	user, password, ok := parseBasic(r.Header.Get("Proxy-Authorization"))
	if r.Method != http.MethodConnect || r.RequestURI != "home.example:443" || !ok || user != "user" || password != "s3cret" {
		t.Errorf("asked %s %s as %q, %q", r.Method, r.RequestURI, user, password)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "early" {
		t.Errorf("what comes with the answer is lost: %q, %v", b, err)
	}
	for _, status := range []string{"407 Proxy Authentication Required", "403 Forbidden", "garbage"} {
		_, err := Through(env, fakeProxy(t, status, "", asked))(t.Context(), "home.example:443")
		<-asked
		if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "proxy.example:8080") {
			t.Errorf("%s: %v", status, err)
		}
	}
	silent := func(context.Context, string) (net.Conn, error) { c, _ := net.Pipe(); return c, nil }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Through(env, silent)(ctx, "home.example:443"); err == nil {
		t.Error("a silent proxy is waited for")
	}
	if _, err := Through(Environment(func(string) string { return "ftp://p:1" }), silent)(t.Context(), "home.example:443"); err == nil {
		t.Error("an FTP proxy is used")
	}
}

func parseBasic(header string) (user, password string, ok bool) {
	return (&http.Request{Header: http.Header{"Authorization": {header}}}).BasicAuth()
}
