package inner

// Sizes of what stands around a plaintext, in bytes.
const (
	TransportHeader = 16 // WireGuard's: type (4), receiver (4), counter (8)
	TransportTag    = 16 // of ChaCha20-Poly1305
	padding         = 16 // WireGuard pads plaintexts to a multiple of this

	udpHeader  = 8
	ipv4Header = 20
	ipv6Header = 40
)

// Overhead is what a body costs on the wire beyond its own bytes, from the
// underlay's IP header on, without padding.
func Overhead(is6 bool) int {
	return ipHeader(is6) + udpHeader + TransportHeader + HeaderLen + TransportTag
}

// UDPPayload is the largest UDP payload in an IP packet of mtu bytes, 0 if none fits.
func UDPPayload(mtu int, is6 bool) int {
	return max(mtu-ipHeader(is6)-udpHeader, 0)
}

// IPPacket is the inverse of UDPPayload: the IP packet around a UDP payload.
func IPPacket(udpPayload int, is6 bool) int {
	return udpPayload + udpHeader + ipHeader(is6)
}

func ipHeader(is6 bool) int {
	if is6 {
		return ipv6Header
	}
	return ipv4Header
}

// MaxPlaintext is the largest padded plaintext on a path that carries UDP
// payloads of at most pathUDPPayload bytes; 0 if none fits.
func MaxPlaintext(pathUDPPayload int) int {
	return max(pathUDPPayload-TransportHeader-TransportTag, 0)
}

// MaxBody is the largest body whose sealed packet fits such a path; 0 if none
// fits. Since padding ends at the path's size, it costs nothing here.
func MaxBody(pathUDPPayload int) int {
	return max(min(MaxPlaintext(pathUDPPayload)-HeaderLen, maxLen), 0)
}

// PadTo is the length to which a plaintext of n bytes is padded: the next
// multiple of 16, but at most limit (MaxPlaintext of the path), and never less than n.
func PadTo(n, limit int) int {
	return max(min((n+padding-1)&^(padding-1), limit), n)
}

// Sealed is the length of the UDP payload that carries a body of n bytes on
// such a path.
func Sealed(n, pathUDPPayload int) int {
	return TransportHeader + PadTo(HeaderLen+n, MaxPlaintext(pathUDPPayload)) + TransportTag
}
