package wireguard

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/replay"
)

// Keypair is the two transport keys of one completed handshake. Its methods
// are safe for concurrent use and do not allocate.
//
// Go cannot promise that a key is gone from memory: a dead Keypair refuses to
// work and is left to the garbage collector.
type Keypair struct {
	session                 *Session
	keys                    *transportKeys
	localIndex, remoteIndex uint32
	initiator               bool  // we sent the initiation
	born                    int64 // nanoseconds after Local.epoch
	served                  uint32

	dead      atomic.Bool   // out of its time, or replaced
	confirmed atomic.Bool   // the peer is known to have this key
	wishes    atomic.Uint32 // what Tick has to see to
	_         [64]byte      // sending and receiving cores each have their own cache line
	nonce     atomic.Uint64
	_         [64]byte

	mu     sync.Mutex
	window replay.Filter // RFC 6479; guarded by mu

	// Far is for the Keypair's user.
	Far Far
}

// Far is what has been said under a key about the process that has its other half.
// It ends with the key: who comes after a restart is asked again.
type Far struct {
	Features atomic.Uint32 // that it has
	Settled  atomic.Bool   // it knows ours
	AskedAt  atomic.Int64  // when it was last told ours, and asked
	Asked    atomic.Int32  // how often
}

// Wishes that the data path has of Tick, once for each Keypair.
const (
	wishRekeySending   = 1 << iota // RekeyAfterTime or RekeyAfterMessages reached
	wishRekeyReceiving             // the key will soon be refused
	wishConfirm                    // the first packet under a key that the peer initiated
	wishRemoval                    // RejectAfterTime reached
)

// LocalIndex is the receiver index of packets that come in.
func (kp *Keypair) LocalIndex() uint32 { return kp.localIndex }

// RemoteIndex is the receiver index of packets that go out.
func (kp *Keypair) RemoteIndex() uint32 { return kp.remoteIndex }

// Session is the one that the keypair belongs to.
func (kp *Keypair) Session() *Session { return kp.session }

// A transport message (paper, 5.4.6), little-endian:
//
//	| 4 0 0 0 | receiver index (4) | counter (8) | ciphertext | tag (16) |
//
// The nonce is four zero bytes and the counter. It is put together in the
// message itself, where the receiver index will stand: a nonce in a variable
// would escape through cipher.AEAD and cost an allocation for each packet.

// Seal appends the transport message of plaintext to dst: header, ciphertext,
// tag. Plaintext may lie exactly where its ciphertext will be, HeaderSize
// behind the end of dst, and must not overlap it otherwise. After ErrExpired
// and ErrExhausted call Session.Initiate.
func (kp *Keypair) Seal(dst, plaintext []byte) ([]byte, error) {
	switch {
	case len(plaintext) > MaxPlaintext:
		return dst, ErrTooLong
	case kp.dead.Load():
		return dst, ErrExpired
	case kp.nonce.Load() >= RejectAfterMessages:
		return dst, ErrExhausted
	}
	counter := kp.nonce.Add(1) - 1
	if counter >= RejectAfterMessages { // several at once; 2^13 are left before it wraps
		return dst, ErrExhausted
	}
	start := len(dst)
	dst = append(dst, byte(TypeTransport), 0, 0, 0, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, counter)
	dst = kp.keys.send.Seal(dst, dst[start+4:start+HeaderSize], plaintext, nil)
	binary.LittleEndian.PutUint32(dst[start+4:], kp.remoteIndex)
	kp.session.activity.tx.Add(uint64(len(plaintext) + Overhead))
	return dst, nil
}

// Open authenticates and decrypts a transport message in place, once: a
// repeated one gives ErrReplay. An empty plaintext is a keepalive.
func (kp *Keypair) Open(packet []byte) (plaintext []byte, err error) {
	if t, ok := Type(packet); !ok || t != TypeTransport {
		return nil, ErrMessage
	}
	if kp.dead.Load() {
		return nil, ErrExpired
	}
	counter := binary.LittleEndian.Uint64(packet[8:])
	if counter >= RejectAfterMessages {
		return nil, ErrReplay
	}
	if binary.LittleEndian.Uint32(packet[4:]) != kp.localIndex {
		return nil, ErrAuth
	}
	binary.LittleEndian.PutUint32(packet[4:], 0)
	body := packet[HeaderSize:]
	plaintext, err = kp.keys.receive.Open(body[:0], packet[4:HeaderSize], body, nil)
	binary.LittleEndian.PutUint32(packet[4:], kp.localIndex)
	if err != nil {
		return nil, ErrAuth
	}
	kp.mu.Lock()
	fresh := kp.window.ValidateCounter(counter, RejectAfterMessages)
	kp.mu.Unlock()
	if !fresh {
		return nil, ErrReplay
	}
	kp.session.activity.rx.Add(uint64(len(packet)))
	return plaintext, nil
}

// MarkSent notes that data was sent with this key, once for a packet or a
// batch. If it returns true, call Session.Tick now.
func (kp *Keypair) MarkSent(now time.Time) (tick bool) {
	return kp.dueAfterSending(kp.session.activity.sent(now, true))
}

// MarkKeepaliveSent is MarkSent for a packet without data.
func (kp *Keypair) MarkKeepaliveSent(now time.Time) (tick bool) {
	return kp.dueAfterSending(kp.session.activity.sent(now, false))
}

// MarkReceived notes that Open has accepted packets: a keepalive, or data, once
// for a packet or a batch. If it returns true, call Session.Tick now: the first
// packet under a key that the peer initiated is what allows us to send with it.
func (kp *Keypair) MarkReceived(now time.Time, keepalive bool) (tick bool) {
	at := kp.session.activity.received(now, !keepalive)
	if !kp.confirmed.Load() && kp.confirmed.CompareAndSwap(false, true) {
		tick = kp.wish(wishConfirm)
	}
	switch age := time.Duration(at - kp.born); {
	case age >= RejectAfterTime:
		kp.dead.Store(true)
		return kp.wish(wishRemoval) || tick
	case kp.initiator && age >= RejectAfterTime-KeepaliveTimeout-RekeyTimeout:
		// "...if it was the initiator of the current secure session, and the
		// session is about to expire" (paper, 6.2).
		return kp.wish(wishRekeyReceiving) || tick
	}
	return tick
}

// dueAfterSending says whether Tick has something to do now that a packet has
// been sent, at nanoseconds after the epoch (paper, 6.2).
func (kp *Keypair) dueAfterSending(at int64) bool {
	age := time.Duration(at - kp.born)
	if age >= RejectAfterTime {
		kp.dead.Store(true)
		return kp.wish(wishRemoval)
	}
	if kp.initiator && age >= RekeyAfterTime || kp.nonce.Load() >= RekeyAfterMessages {
		return kp.wish(wishRekeySending)
	}
	return false
}

// wish reports whether it is the first of its kind.
func (kp *Keypair) wish(w uint32) bool {
	return kp.wishes.Load()&w == 0 && kp.wishes.Or(w)&w == 0
}

// usable reports whether Seal would work.
func (kp *Keypair) usable() bool {
	return !kp.dead.Load() && kp.nonce.Load() < RejectAfterMessages
}
