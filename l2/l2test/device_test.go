package l2test_test

import (
	"testing"

	"meshd/l2"
	"meshd/l2/l2test"
)

func TestTwinConforms(t *testing.T) {
	l2test.Conform(t, func(*testing.T) (l2.Device, l2test.Host) {
		d := l2test.NewDevice("twin0")
		return d, d
	})
}
