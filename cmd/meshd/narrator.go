package main

import (
	"fmt"
	"sync"
)

// narrator tells what happens in the demo as it happens: each line is printed whole, whoever it comes from.
type narrator struct {
	app *app

	mu   sync.Mutex
	over bool // the line that the cursor is on will be written over
}

func newNarrator(a *app) *narrator { return &narrator{app: a} }

// print prints one line, in place of one that was there to be written over.
func (n *narrator) print(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over {
		n.app.printf("\r\x1b[K")
		n.over = false
	}
	n.app.printf("%s\n", line)
}

// headline begins a step.
func (n *narrator) headline(text string) {
	n.print("")
	n.print(n.app.style.paint(bold, "== "+text))
}

// say is the narrator's own voice.
func (n *narrator) say(format string, args ...any) {
	n.print("   " + clean(fmt.Sprintf(format, args...)))
}

// command is what somebody types on a machine.
func (n *narrator) command(host, text string) {
	n.print(n.app.style.paint(cyan, fmt.Sprintf("%8s", host)) + n.app.style.paint(bold, "$ "+clean(text)))
}

// line is what a program prints on a machine.
func (n *narrator) line(host, text string) { n.raw(host, clean(text)) }

// raw is a line that may have colours.
func (n *narrator) raw(host, text string) {
	n.print(n.app.style.paint(cyan, fmt.Sprintf("%8s", host)) + n.app.style.paint(dim, "| ") + text)
}

// progress shows, on a terminal, how things are at the moment. Elsewhere it says nothing.
func (n *narrator) progress(format string, args ...any) {
	if !n.app.live {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.app.printf("\r\x1b[K   %s", clean(fmt.Sprintf(format, args...)))
	n.over = true
}

// progressEnd leaves the last progress as it is.
func (n *narrator) progressEnd() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over {
		n.app.printf("\n")
		n.over = false
	}
}
