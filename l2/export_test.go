package l2

// Attacks are frames that a member without roles sends from 02:00:00:00:00:01 to
// take over the places of members with the addresses that guarded names.
var Attacks = attacks

// RouterAdvertisement is one of fe80::7, from 02:00:00:00:00:01.
func RouterAdvertisement() []byte { return routerAdvertisement("fe80::7", snoopSrc) }

// Advertisement says that target is at mac.
func Advertisement(target string, mac MAC) []byte { return from(mac, advertisement(target, mac[:])) }

// Speaking is an ARP request in which mac says that it has ip.
var Speaking = speaking
