//go:build !unix

package keys

import "io/fs"

func checkOwner(string, fs.FileInfo) error { return nil }
