// Package lan finds members on the links of this host, without internet, DNS or
// anybody else: each tells its links from time to time that it is there, and who
// hears of one that it does not know says hello.
//
//	Beacon   pure: when to speak, what to say, whom to meet
//	Conn     the shell: multicast on every link, IPv4 and IPv6
//
// What is said names nobody. It carries a tag that only those can make, and
// recognise, who know the network's root key: members, and strangers to whom a
// member has shown it in a hello, who learn no more here than they did there.
// All else is the hello's: identities cross encrypted, and only to members.
package lan
