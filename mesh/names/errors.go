package names

import "errors"

// ErrNoResolved says that no systemd-resolved runs here that could be told of the zone. [Hint] says what can be done.
var ErrNoResolved = errors.New("systemd-resolved does not run")
