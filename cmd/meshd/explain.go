package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/bridge"
	"meshd/mesh/api"
)

// tunDevice is where Linux makes TAPs.
const tunDevice = "/dev/net/tun"

// tunRemedy is what helps who may not make a TAP.
const tunRemedy = "run it as root, or give it CAP_NET_ADMIN and " + tunDevice + "; --no-tap does without"

// explain adds to a node's error what the user can do about it, where the error does not say so itself.
func explain(err error, c nodeConfig) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	e := asError(err)
	e.Why = oneLine(e.Why)
	if b, ok := errors.AsType[*bridge.Error](err); ok && b.Remedy != "" {
		e.Remedy = b.Remedy
		return e
	}
	switch {
	case strings.Contains(e.Why, "with --state"): // the error itself says what to do
	case strings.HasPrefix(err.Error(), "plug "):
		e.Remedy = "give another place to --plug"
	case errors.Is(err, syscall.EADDRINUSE) && strings.Contains(err.Error(), "listen for TLS"):
		e.Remedy = "choose another port with --listen-tls"
	case errors.Is(err, syscall.EACCES) && strings.Contains(err.Error(), "listen for TLS"):
		e.Remedy = "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another port with --listen-tls"
	case errors.Is(err, syscall.EADDRINUSE):
		e.Remedy = "choose another port with --listen"
	case errors.Is(err, keys.ErrLocked):
		e.Remedy = "end the other meshd with meshd down, or give this one its own --state"
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(err.Error(), tunDevice):
		e.Remedy = "load the module (modprobe tun) or give the container the device " + tunDevice + "; --no-tap does without"
	case errors.Is(err, fs.ErrPermission) && strings.Contains(err.Error(), c.StateDir) && c.StateDir != "":
		e.Remedy = "run it as the user that owns the folder, or name another with --state"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EPERM):
		e.Remedy = tunRemedy
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EROFS):
		e.Remedy = fmt.Sprintf("make room in %s, or name another folder with --state", c.StateDir)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Remedy = "give an address of this host to --listen"
	default:
		if d, ok := errors.AsType[*l2.DeviceError](err); ok {
			e.Remedy = d.Remedy
		}
	}
	return e
}
