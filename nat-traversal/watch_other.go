//go:build !linux

package traversal

import "context"

func watchSystem(ctx context.Context, changed func()) { pollInterfaces(ctx, changed) }
