//go:build !linux

package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: "+runtime.GOOS+" has no network namespaces: run it on Linux")
	os.Exit(1)
}
