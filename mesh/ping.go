package mesh

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"meshd/peer"
)

// A ping is a control message: kind (1), flags (1: 1 is an answer), number (8),
// bytes to fill it up.
const pingSize = 64

// pinger matches answers with the pings that wait for them.
type pinger struct {
	mu      sync.Mutex
	waiting map[uint64]chan time.Time
}

// receive answers a ping, or hands an answer to who waits for it.
func (p *pinger) receive(from *peer.Remote, msg []byte) {
	if len(msg) < 10 || len(msg) > pingSize {
		return
	}
	if msg[1] == 0 {
		answer := append([]byte(nil), msg...)
		answer[1] = 1
		from.SendControl(answer)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	number := binary.BigEndian.Uint64(msg[2:])
	if c, ok := p.waiting[number]; ok {
		delete(p.waiting, number)
		c <- time.Now()
	}
}

// send starts one ping. The channel yields the time of the answer; forget ends
// the wait for it.
func (p *pinger) send(to *peer.Remote) (answer <-chan time.Time, forget func()) {
	msg := make([]byte, pingSize)
	msg[0] = kindPing
	_, _ = rand.Read(msg[2:10]) // never fails (crypto/rand)
	number := binary.BigEndian.Uint64(msg[2:])
	c := make(chan time.Time, 1)
	p.mu.Lock()
	if p.waiting == nil {
		p.waiting = map[uint64]chan time.Time{}
	}
	p.waiting[number] = c
	p.mu.Unlock()
	to.SendControl(msg)
	return c, func() {
		p.mu.Lock()
		delete(p.waiting, number)
		p.mu.Unlock()
	}
}
