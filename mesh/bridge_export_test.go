package mesh

// Bridged is what a host's OpenBridge returns.
type Bridged = bridged
