//go:build shortkeys

package wireguard

import "time"

// Keys for tests that are to see many rekeys in little time: go build -tags shortkeys.
const (
	RekeyAfterTime  = 1 * time.Second
	RejectAfterTime = RekeyAfterTime + 60*time.Second
)
