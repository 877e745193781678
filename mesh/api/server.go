package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// headerTimeout and bodyTimeout are how long a request may take to arrive, writeTimeout how long one write of the answer may.
	headerTimeout = 5 * time.Second
	bodyTimeout   = 5 * time.Second
	writeTimeout  = 5 * time.Second
	idleTimeout   = 30 * time.Second
	// shutdownTimeout is how long Serve lets running requests end by themselves.
	shutdownTimeout = time.Second
	// maxHeader bounds a request's header.
	maxHeader = 8 << 10
	// host is the only Host that our client sends; localhost is for curl.
	host      = "meshd"
	otherHost = "localhost"
)

// server answers for a node.
type server struct {
	node Node
	log  *slog.Logger
}

// NewServer is the handler of the control socket. It does what the sender of a request has the right to, which
// [Serve] notes in the request's context; a request without that note may do nothing.
func NewServer(node Node, log *slog.Logger) http.Handler {
	s := &server{node: node, log: log}
	mux := http.NewServeMux()
	mux.Handle("GET /v1/status", s.guard(mayRead, s.status))
	mux.Handle("GET /v1/hosts", s.guard(mayRead, s.hosts))
	mux.Handle("GET /v1/requests", s.guard(mayRead, s.requests))
	mux.Handle("POST /v1/ping", s.guard(mayRead, s.ping))
	mux.Handle("POST /v1/netcheck", s.guard(mayRead, s.netcheck))
	mux.Handle("POST /v1/wait", s.guard(mayRead, s.wait))
	mux.Handle("POST /v1/invite", s.guard(mayChange, s.invite))
	mux.Handle("POST /v1/approve", s.guard(mayChange, s.approve))
	mux.Handle("POST /v1/deny", s.guard(mayChange, s.deny))
	mux.Handle("GET /v1/share", s.guard(mayRead, s.share))
	mux.Handle("POST /v1/share", s.guard(mayChange, s.changeShare))
	mux.Handle("GET /v1/prefix", s.guard(mayRead, s.prefix))
	mux.Handle("POST /v1/prefix", s.guard(mayChange, s.changePrefix))
	mux.Handle("GET /v1/gateway", s.guard(mayRead, s.gateway))
	mux.Handle("POST /v1/revoke", s.guard(mayChange, s.revoke))
	mux.Handle("POST /v1/role", s.guard(mayChange, s.role))
	mux.Handle("POST /v1/leave", s.guard(mayChange, s.leave))
	mux.Handle("POST /v1/down", s.guard(mayChange, s.down))
	mux.Handle("POST /v1/stream", s.guard(mayRead, s.stream))
	mux.Handle("POST /v1/plug", s.guard(mayChange, s.plug))
	mux.Handle("/", s.guard(mayRead, s.unknown))
	return mux
}

// Serve answers for node at l, a listener made by [Listen], until ctx ends; then it closes l, which removes the socket,
// and returns nil.
func Serve(ctx context.Context, l net.Listener, node Node, log *slog.Logger) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           NewServer(node, log),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withRights,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, done := context.WithTimeout(base, shutdownTimeout)
		defer done()
		if srv.Shutdown(grace) != nil {
			cancel()
			srv.Close()
		}
	})
	err := srv.Serve(newLimiter(l))
	if !stop() {
		<-stopped
		return nil
	}
	l.Close()
	return err
}

// guard lets a request through to do if its sender has the right and it does not come from a web page.
func (s *server) guard(need rights, do func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
		_ = rc.SetWriteDeadline(time.Now().Add(bodyTimeout + writeTimeout))
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		err := admit(r, need)
		if err == nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody+1)
			err = do(w, r)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	})
}

// admit says why a request may not be answered, or nil.
func admit(r *http.Request, need rights) error {
	denied := func(why, remedy string) error {
		return &Error{Code: CodeDenied, What: strings.TrimPrefix(r.URL.Path, "/v1/"), Why: why, Remedy: remedy}
	}
	for _, name := range []string{"Origin", "Referer", "Sec-Fetch-Site"} {
		if _, ok := r.Header[name]; ok {
			return denied("requests by web pages are refused", "")
		}
	}
	if r.Host != host && r.Host != otherHost {
		return denied("the request is for another host", "")
	}
	if rightsIn(r.Context()) < need {
		return denied("permission denied", "run it as root or as the user that runs the daemon")
	}
	if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "application/json" {
		return usage(strings.TrimPrefix(r.URL.Path, "/v1/"), "the request is not JSON", "")
	}
	return nil
}

// fail answers with an error.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return
	}
	e := asError(strings.TrimPrefix(r.URL.Path, "/v1/"), err)
	if e.Code == CodeFailed {
		s.log.Info("control request failed", "path", r.URL.Path, "err", err)
	}
	s.answer(w, e.Code.httpStatus(), errorBody{Error: e})
}

// asError is err as it crosses the socket.
func asError(what string, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		c := *e
		if c.Code == "" {
			c.Code = CodeFailed
		}
		return &c
	}
	return &Error{Code: CodeFailed, What: what, Why: err.Error()}
}

// answer writes v as JSON.
func (s *server) answer(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.log.Error("encode answer", "err", err)
		status, body = http.StatusInternalServerError, []byte(`{"error":{"code":"failed","what":"encode answer","why":"internal error"}}`)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(body, '\n')); err != nil {
		s.log.Debug("write answer", "err", err)
	}
}

// body reads a request's JSON and then lets the connection rest for as long as the answer takes: a read deadline that
// passes while the handler works would cancel it.
func body(w http.ResponseWriter, r *http.Request, v any) error {
	if err := decodeStrict(r.Body, v); err != nil {
		return usage(strings.TrimPrefix(r.URL.Path, "/v1/"), err.Error(), "")
	}
	longRequest(w)
	return nil
}

// longRequest lifts the deadlines of a request that has arrived whole.
func longRequest(w http.ResponseWriter) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})
}
