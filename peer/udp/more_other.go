//go:build !linux

package udp

import "errors"

// more: elsewhere SO_REUSEPORT does not spread what comes, or there is none.
func more(*Socket, Options) (*Socket, error) { return nil, errors.ErrUnsupported }
