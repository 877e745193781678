//go:build linux

package guest

import "testing"

func TestDependency(t *testing.T) {
	const out = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-57-cloud-amd64\n    linux-image-6.1.0-57-cloud-amd64-unsigned\n"
	if name, ok := dependency(out); !ok || name != "linux-image-6.1.0-57-cloud-amd64" {
		t.Errorf("%q, %v", name, ok)
	}
	if name, ok := dependency("N: Unable to locate package\n"); ok {
		t.Errorf("%q", name)
	}
}

// A cache that was made for fewer modules is made anew.
func TestCacheOfFewerModules(t *testing.T) {
	if order := "virtio_ring\nvirtio\ntun\n"; !hasAll(order, []string{"tun", "virtio"}) || hasAll(order, []string{"tun", "virtio_net"}) || hasAll("", modules) {
		t.Errorf("%q", order)
	}
}
