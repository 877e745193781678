package main

import (
	"context"

	"meshd/integration/lab"
)

// enterLab must come first in main: a host of the demo's lab is this program started again.
func enterLab() { lab.Shim() }

func (a *app) demo(context.Context) error { return lab.Supported() }
