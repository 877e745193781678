package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"meshd/mesh/api"
)

const (
	// rootState and rootSocket are where the node of the whole machine keeps its state and listens.
	rootState  = "/var/lib/meshd"
	rootSocket = "/run/meshd/meshd.sock"
	socketName = "meshd.sock"
)

// settlePaths fills in where state and socket are: flag, then environment, then default.
func (a *app) settlePaths(flags *pflag.FlagSet, starting bool) error {
	f := &a.flags
	if !changed(flags, "state") {
		f.state = a.getenv("MESHD_STATE")
	} else if f.state == "" {
		return usagef("state", "the folder's name is empty")
	}
	if !changed(flags, "socket") {
		f.socket = a.getenv("MESHD_SOCKET")
	} else if f.socket == "" {
		return usagef("socket", "the path is empty")
	}
	chosen := f.state != ""
	if !chosen {
		var err error
		if f.state, err = defaultState(os.Geteuid(), a.getenv); err != nil {
			return err
		}
	}
	state, err := filepath.Abs(f.state)
	if err != nil {
		return usagef("state", "%v", err)
	}
	f.state = state
	if f.socket == "" {
		f.socket = defaultSocket(f.state, !chosen && !starting, fileExists)
	}
	if f.socket, err = filepath.Abs(f.socket); err != nil {
		return usagef("socket", "%v", err)
	}
	return nil
}

// defaultState is the state folder of a user who named none.
func defaultState(uid int, getenv func(string) string) (string, error) {
	if uid == 0 {
		return rootState, nil
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "meshd"), nil
	}
	if dir := getenv("LOCALAPPDATA"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "meshd"), nil
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "meshd"), nil
	}
	return "", &api.Error{
		Code: api.CodeUsage, What: "find the state folder", Why: "neither XDG_STATE_HOME nor HOME is set",
		Remedy: "name one with --state",
	}
}

// defaultSocket is the control socket that belongs to a state folder. A user who asks without having named a folder, and has no node of
// his own, means the machine's.
func defaultSocket(state string, guess bool, exists func(string) bool) string {
	own := filepath.Join(state, socketName)
	if state == rootState || guess && !exists(own) {
		return rootSocket
	}
	return own
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
