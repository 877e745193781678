// Command meshd joins machines into one Ethernet segment, wherever they are.
//
// Each command is one file. What they share:
//
//	main.go ── app.go (streams, errors, exit status) ── root.go (the commands, flags of all)
//	               │                                       │
//	               │                        config.go (TOML file), paths.go (state, socket)
//	    up.go, upflags.go, node.go ── package mesh: the node itself
//	    all others ── package mesh/api: a client of the control socket
//	    text.go, table.go ── what people read
//
// The exit status is 0 done, 1 failed, 2 wrong usage, 3 no daemon answers, 4 not connected.
package main
