package api

import (
	"errors"
	"net/http"
)

// Code is the kind of an [Error]. It decides the exit status and the HTTP status.
type Code string

// The codes. What each means to the user is in [Code.ExitStatus].
const (
	// CodeFailed: it was tried and did not work.
	CodeFailed Code = "failed"
	// CodeUsage: what was asked makes no sense; nothing was tried.
	CodeUsage Code = "usage"
	// CodeNoDaemon: no daemon answers at the socket. Start one.
	CodeNoDaemon Code = "no_daemon"
	// CodeNotConnected: the daemon runs but is not connected to what was asked for, or a wait ran out.
	CodeNotConnected Code = "not_connected"
	// CodeDenied: the caller may not do this.
	CodeDenied Code = "denied"
	// CodeUnknownName: no member has the name.
	CodeUnknownName Code = "unknown_name"
	// CodeAmbiguousName: several members have it; give more of it.
	CodeAmbiguousName Code = "ambiguous_name"
	// CodeUnsupported: this version or this system cannot.
	CodeUnsupported Code = "unsupported"
	// CodeBusy: too many ask at once.
	CodeBusy Code = "busy"
)

// ExitStatus is the exit status of a command that ends with an error of this code.
func (c Code) ExitStatus() int {
	switch c {
	case CodeUsage, CodeAmbiguousName:
		return 2
	case CodeNoDaemon:
		return 3
	case CodeNotConnected:
		return 4
	default:
		return 1
	}
}

// httpStatus is the status of a response that carries an error of this code.
func (c Code) httpStatus() int {
	switch c {
	case CodeUsage, CodeAmbiguousName:
		return http.StatusBadRequest
	case CodeUnknownName:
		return http.StatusNotFound
	case CodeDenied:
		return http.StatusForbidden
	case CodeNotConnected:
		return http.StatusGatewayTimeout
	case CodeUnsupported:
		return http.StatusNotImplemented
	case CodeBusy, CodeNoDaemon:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// Error is an error that says what to do about it. It crosses the socket whole.
type Error struct {
	Code Code `json:"code"`
	// What names the operation, as in "approve" or `open tap "mesh0"`.
	What string `json:"what"`
	// Why is the reason, in one line.
	Why string `json:"why"`
	// Remedy is what the user can do, in one line, or empty.
	Remedy string `json:"remedy,omitempty"`
	// Err is the cause, where there is one. It does not cross the socket.
	Err error `json:"-"`
}

// Error is "what: why".
func (e *Error) Error() string {
	switch {
	case e.What == "":
		return e.Why
	case e.Why == "":
		return e.What
	default:
		return e.What + ": " + e.Why
	}
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrNoDaemon is in the chain of every error that a [Client] returns because nobody answers at the socket.
var ErrNoDaemon = errors.New("no daemon answers")

// CodeOf is the code of the first [*Error] in err's chain, CodeNoDaemon for [ErrNoDaemon], else CodeFailed. It is
// empty for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Code != "" {
		return e.Code
	}
	if errors.Is(err, ErrNoDaemon) {
		return CodeNoDaemon
	}
	return CodeFailed
}
