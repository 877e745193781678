// Package api is what a running node and its commands say to each other over the control socket: HTTP with JSON
// on a Unix socket that only root, the owner and the group meshd may open.
//
//	meshd status ──► Client ──► /run/meshd/meshd.sock ──► Server ──► Node
//	                                                       │ who asks (SO_PEERCRED)
//	                                                       │ Origin, Referer, Host
//
// The node implements [Node]; everything else is here: the JSON types, the rights, the limits, the errors and what
// exit status they mean. The package knows neither networks nor frames.
package api
