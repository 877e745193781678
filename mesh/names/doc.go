// Package names lets hosts find members by name: NAME.mesh.internal.
//
//	getaddrinfo ──► systemd-resolved ──(~mesh.internal)──► Server on 127.0.0.1:5383 ──► snapshot
//	                     ▲                                                                 ▲
//	                     └──── Register, over D-Bus                                        └── SetNames, by the node
//
// The server answers for the zone mesh.internal and for the reverse names of members, refuses all else and asks nobody.
// Only this host can ask it. Where systemd-resolved runs, Register routes the zone to it; elsewhere [Hint] says what a
// user can do. resolv.conf is never touched.
package names
