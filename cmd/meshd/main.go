package main

import (
	"context"
	"os"
	"strings"
)

func main() {
	enterLab()
	args := make([]string, 0, len(os.Args))
	for _, a := range os.Args[1:] {
		args = append(args, strings.Clone(a)) // os.Args is about to be wiped
	}
	wipeInvites(os.Args[1:])
	os.Exit(newApp().run(context.Background(), args))
}
