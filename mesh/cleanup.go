package mesh

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"meshd/keys"
	"meshd/l2"
	"meshd/l2/bridge"
	"meshd/mesh/underlay"
)

// noteTAP writes down that this node has, or is about to have, a TAP of that name.
func noteTAP(store *keys.Store, name string) error {
	return store.Save(stateHost, []byte("tap "+name+"\n"))
}

// forgetTAP writes down that it is gone.
func forgetTAP(store *keys.Store) error { return store.Save(stateHost, nil) }

// CleanUp removes what a node that was killed has left on this host: what its
// state lists. It is an error if the node still runs.
func CleanUp(stateDir string) error {
	if _, err := os.Stat(stateDir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	store, err := keys.Open(stateDir)
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	defer store.Close()
	list, err := store.Load(stateHost)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clean up: %w", err)
	}
	var taps []string
	for line := range strings.Lines(string(list)) {
		what, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what != "tap" {
			return fmt.Errorf("clean up: the state lists %.40q, which this version does not know", what)
		}
		taps = append(taps, name)
	}
	var errs []error
	for _, name := range taps {
		errs = append(errs, removeRoutes(store, name)) // while the TAP is in its bridge
	}
	errs = append(errs, cleanUpBridge(store))
	for _, name := range taps {
		errs = append(errs, underlay.Remove(name), l2.RemoveTAP(name), removeUAPI(name))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	if len(taps) == 0 {
		return nil
	}
	return forgetTAP(store)
}

// cleanUpBridge takes the TAP out of the bridge that it was put into.
func cleanUpBridge(store *keys.Store) error {
	record, err := store.Load(stateBridge)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = bridge.Undo(record)
	}
	if err != nil || len(record) == 0 {
		return err
	}
	return store.Save(stateBridge, nil)
}

// Forget removes the state of a node that does not run, its identity included.
func Forget(stateDir string) error {
	store, err := keys.Open(stateDir)
	if err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return store.Remove()
}
