//go:build !linux

package traversal

import "context"

func watchSystem() (run func(ctx context.Context, changed func())) { return pollInterfaces }
