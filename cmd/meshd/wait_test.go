package main

import (
	"errors"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"meshd/mesh/api"
)

func TestDurationFlag(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"30s", 30 * time.Second, true},
		{"1m30s", 90 * time.Second, true},
		{"30", 30 * time.Second, true},
		{"0", 0, true},
		{"", 0, false},
		{"soon", 0, false},
		{"99999999999999999999", 0, false},
	} {
		t.Run(tt.text, func(t *testing.T) {
			var got time.Duration
			f := pflag.NewFlagSet("", pflag.ContinueOnError)
			f.Var((*duration)(&got), "timeout", "")
			err := f.Parse([]string{"--timeout", tt.text})
			if (err == nil) != tt.ok || tt.ok && got != tt.want {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// Without a daemon a wait with a timeout is patient, and then says that there is none.
func TestWaitForDaemonThatIsNotThere(t *testing.T) {
	a := &app{}
	a.flags.socket = t.TempDir() + "/meshd.sock"
	began := time.Now()
	err := a.wait(t.Context(), api.WaitSpec{Timeout: 100 * time.Millisecond})
	if !errors.Is(err, api.ErrNoDaemon) || time.Since(began) < 100*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if err := a.wait(t.Context(), api.WaitSpec{}); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("without a timeout: %v", err)
	}
}
