package portmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// loop is a router on loopback.
var loop = Route{Gateway: netip.MustParseAddr("127.77.0.1"), Source: netip.MustParseAddr("127.0.0.1")}

var routers atomic.Uint32

// anotherLoop is one at an address that nobody else has, so that its ports are free.
func anotherLoop() Route {
	n := routers.Add(1)
	return Route{Gateway: netip.AddrFrom4([4]byte{127, 77, byte(n>>8) + 1, byte(n)}), Source: loop.Source}
}

// serveUDP answers every datagram at the router's port by answer.
func serveUDP(t *testing.T, r Route, port uint16, answer func(q []byte) [][]byte) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.Gateway, port)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, b := range answer(buf[:n]) {
				_, _ = conn.WriteToUDPAddrPort(b, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

// TestHostilePCP: floods, lies and silence end in time, and open nothing.
func TestHostilePCP(t *testing.T) {
	flood := make([][]byte, 2000)
	for i := range flood {
		flood[i] = make([]byte, i)
	}
	for name, answer := range map[string]func([]byte) [][]byte{
		"silence":     func([]byte) [][]byte { return nil },
		"garbage":     func([]byte) [][]byte { return flood },
		"an echo":     func(q []byte) [][]byte { return [][]byte{q} },
		"cut answers": func(q []byte) [][]byte { return [][]byte{{2}, {2, 129}, {2, 129, 0, 0, 0, 0}, {0, 129, 0}} },
		"another's":   func([]byte) [][]byte { return [][]byte{pcpGranted(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := anotherLoop()
			serveUDP(t, r, serverPort, answer)
			began := time.Now()
			_, err := pcpClient{}.open(t.Context(), r, 51830, netip.AddrPort{})
			if took := time.Since(began); err == nil || took > 6*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
	for name, outer := range map[string]string{"loopback": "127.0.0.1", "all": "0.0.0.0", "multicast": "224.0.0.1"} {
		m := Mapping{Internal: inner4, External: netip.AddrPortFrom(netip.MustParseAddr(outer), 7), Lifetime: time.Hour}
		if m.validate() == nil {
			t.Errorf("%s is taken for an outside address", name)
		}
	}
	m := Mapping{Internal: inner4, External: netip.MustParseAddrPort("[2001:db8::1]:7"), Lifetime: time.Hour}
	if m.validate() == nil {
		t.Error("another family is taken")
	}
}

// TestNobodyThere: a closed port is known at once, by ICMP.
func TestNobodyThere(t *testing.T) {
	began := time.Now()
	if err := (pcpClient{}).probe(t.Context(), anotherLoop()); err == nil || time.Since(began) > time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestExchangeEndsWithItsContext(t *testing.T) {
	r := anotherLoop()
	serveUDP(t, r, serverPort, func([]byte) [][]byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := (natpmpClient{}).probe(ctx, r); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

const rootDescription = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>%s
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<controlURL>%s</controlURL><eventSubURL>/e</eventSubURL><SCPDURL>/s</SCPDURL></service></serviceList></device></root>`

// upnpRouter is a UPnP router whose pages are pages.
func upnpRouter(t *testing.T, r Route, location string, pages http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(r.Gateway, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: pages}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	if location == "" {
		location = "http://" + l.Addr().String() + "/desc"
	}
	serveUDP(t, r, ssdpPort, func(q []byte) [][]byte {
		if !strings.HasPrefix(string(q), "M-SEARCH * HTTP/1.1\r\n") {
			t.Errorf("asked %q", q)
		}
		return [][]byte{[]byte("HTTP/1.1 200 OK\r\nST: x\r\nLocation: " + location + "\r\n\r\n")}
	})
}

// TestHostileUPnP: a router that lies, never ends or sends us elsewhere gets nothing, in bounded time.
func TestHostileUPnP(t *testing.T) {
	elsewhere := make(chan string, 8)
	victim := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere <- r.URL.Path })
	l, err := net.Listen("tcp", "127.88.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	third := &http.Server{Handler: victim}
	go func() { _ = third.Serve(l) }()
	t.Cleanup(func() { third.Close() })
	other := "http://" + l.Addr().String()

	page := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	}
	endless := func(begin, more string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, begin)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(more, 1000)); err != nil {
					return
				}
			}
		})
	}
	for _, test := range []struct {
		name, location string
		pages          http.Handler
	}{
		{"its description is elsewhere", other + "/desc", page("")},
		{"its description is at a name", "http://router.example/desc", page("")},
		{"its description is no page", "file:///etc/passwd", page("")},
		{"it redirects", "", http.RedirectHandler(other+"/desc", http.StatusFound)},
		{"its actions are elsewhere", "", page(fmt.Sprintf(rootDescription, "", other+"/control"))},
		{"its base is elsewhere", "", page(fmt.Sprintf(rootDescription, "<URLBase>"+other+"/</URLBase>", "/control"))},
		{"no XML", "", page("\x00\xff<<<")},
		{"an endless description", "", endless("<root>", "<a/>")},
		{"a deep description", "", endless(`<root xmlns="urn:schemas-upnp-org:device-1-0"><device>`, "<deviceList><device>")},
		{"an endless answer", "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/desc" {
				_, _ = fmt.Fprintf(w, rootDescription, "", "/control")
				return
			}
			endless(`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`, "<x/>").ServeHTTP(w, r)
		})},
		{"a lie about its address", "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/desc" {
				_, _ = fmt.Fprintf(w, rootDescription, "", "/control")
				return
			}
			_, _ = io.WriteString(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:GetExternalIPAddressResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1"><NewExternalIPAddress>127.0.0.1</NewExternalIPAddress></u:GetExternalIPAddressResponse></s:Body></s:Envelope>`)
		})},
		{"it accepts and is silent", "", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := anotherLoop()
			upnpRouter(t, r, test.location, test.pages)
			began := time.Now()
			m, err := upnpClient{}.open(t.Context(), r, 51830, netip.AddrPort{})
			if took := time.Since(began); err == nil || took > 3*httpTimeout {
				t.Errorf("%+v, %v after %v", m, err, took)
			}
			select {
			case path := <-elsewhere:
				t.Errorf("it had us ask another host for %s", path)
			default:
			}
		})
	}
}

func FuzzSSDP(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nLocation: http://127.77.0.1:5000/rootDesc.xml\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nLocation: http://user@127.77.0.1/\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := parseSSDP(b, loop)
		if err == nil && (u.Scheme != "http" || u.Hostname() != loop.Gateway.String()) {
			t.Fatalf("%q leads to %v", b, u)
		}
	})
}

func FuzzDescription(f *testing.F) {
	f.Add(fmt.Sprintf(rootDescription, "", "/control"))
	f.Add(fmt.Sprintf(rootDescription, "<URLBase>http://%zz/</URLBase>", "http://[::1"))
	at, err := parseSSDP([]byte("HTTP/1.1 200 OK\r\nLocation: http://127.77.0.1:5000/\r\n\r\n"), loop)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		root, err := parseDescription(strings.NewReader(text), at)
		if err != nil {
			return
		}
		connections(root, at, http.DefaultClient)
		firewalls(root, at, http.DefaultClient)
	})
}
