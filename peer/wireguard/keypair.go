package wireguard

import "time"

// Keypair is the two transport keys of one completed handshake. Its methods
// are safe for concurrent use and do not allocate.
type Keypair struct {
	localIndex, remoteIndex uint32
}

// LocalIndex is the receiver index of packets that come in.
func (kp *Keypair) LocalIndex() uint32 { return kp.localIndex }

// RemoteIndex is the receiver index of packets that go out.
func (kp *Keypair) RemoteIndex() uint32 { return kp.remoteIndex }

// Session is the one that the keypair belongs to.
func (kp *Keypair) Session() *Session { panic("todo") }

// Seal appends the transport message of plaintext to dst: header, ciphertext,
// tag. Plaintext may lie exactly where its ciphertext will be, HeaderSize
// behind the end of dst, and must not overlap it otherwise. After ErrExpired
// and ErrExhausted call Session.Initiate.
func (kp *Keypair) Seal(dst, plaintext []byte) ([]byte, error) { panic("todo") }

// Open authenticates and decrypts a transport message in place, once: a
// repeated one gives ErrReplay. An empty plaintext is a keepalive.
func (kp *Keypair) Open(packet []byte) (plaintext []byte, err error) { panic("todo") }

// MarkSent notes that data was sent with this key, once for a packet or a
// batch. If it returns true, call Session.Tick now.
func (kp *Keypair) MarkSent(now time.Time) (tick bool) { panic("todo") }

// MarkKeepaliveSent is MarkSent for a packet without data.
func (kp *Keypair) MarkKeepaliveSent(now time.Time) (tick bool) { panic("todo") }

// MarkReceived notes that Open has accepted packets: a keepalive, or data, once
// for a packet or a batch. If it returns true, call Session.Tick now: the first
// packet under a key that the peer initiated is what allows us to send with it.
func (kp *Keypair) MarkReceived(now time.Time, keepalive bool) (tick bool) { panic("todo") }
