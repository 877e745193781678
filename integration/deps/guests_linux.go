package main

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"time"

	"meshd/integration/lab/guest"
)

// guests fetches the kernel of the tests' virtual machines into a cache. Debian has it for all systems, but the tests boot
// amd64 only.
func guests(updated bool) error {
	if runtime.GOARCH != "amd64" {
		fmt.Println("no kernel for virtual machines: tests with some are skipped")
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		fmt.Println("no apt-get to fetch a kernel with: tests with virtual machines are skipped")
		return nil
	}
	if !updated && !guest.Cached() {
		if err := apt("update", "-q"); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	_, err := guest.Load(ctx)
	return err
}
