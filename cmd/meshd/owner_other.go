//go:build !unix

package main

// ofAnother does not know.
func ofAnother(string) bool { return false }
