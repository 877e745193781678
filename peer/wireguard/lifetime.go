//go:build !shortkeys

package wireguard

import "time"

// How long a key is used to send before it is replaced, and how long it is good
// at all (paper, 6.1).
const (
	RekeyAfterTime  = 120 * time.Second
	RejectAfterTime = 180 * time.Second
)
