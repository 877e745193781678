package wireguard

import (
	"slices"
	"time"
)

// maxOld is how many former keys are kept for packets that are still on their
// way. The paper keeps one; the second is for when both sides have initiated at
// once, so that a rekey loses nothing.
const maxOld = 2

// keyring is the keys of a Session: at most 2+maxOld.
//
//	response to our initiation ------------> current --> old --> gone
//	their initiation --> next --(confirmed)-----^
type keyring struct {
	current *Keypair   // sends
	next    *Keypair   // made as responder; may not send until the first packet under it has come (paper, 5.4.6)
	old     []*Keypair // receive only; the youngest first
}

// all yields every key.
func (r *keyring) all(yield func(*Keypair) bool) {
	for _, kp := range append([]*Keypair{r.current, r.next}, r.old...) {
		if kp != nil && !yield(kp) {
			return
		}
	}
}

// respond takes the key of a response that we send.
func (r *keyring) respond(out *Output, kp *Keypair) {
	out.drop(r.next)
	r.next = kp
	out.Added = append(out.Added, kp)
}

// initiate takes the key of a response that we received. With a next key both
// sides have initiated at once. If keepNext, that one will take over as soon
// as the peer uses it, so that both end up with the same key and one initiator;
// else it only receives.
func (r *keyring) initiate(out *Output, kp *Keypair, keepNext bool) {
	r.retire(out, r.current)
	if !keepNext {
		r.retire(out, r.next)
		r.next = nil
	}
	r.current = kp
	out.Added = append(out.Added, kp)
}

// confirm moves the next key up.
func (r *keyring) confirm(out *Output) {
	r.retire(out, r.current)
	r.current, r.next = r.next, nil
}

// retire lets kp receive only.
func (r *keyring) retire(out *Output, kp *Keypair) {
	if kp == nil {
		return
	}
	r.old = slices.Insert(r.old, 0, kp)
	if len(r.old) > maxOld {
		out.drop(r.old[maxOld])
		r.old = r.old[:maxOld:maxOld]
	}
}

// expire drops the keys that are RejectAfterTime old (paper, 6.2). After three
// times that the paper wants nothing left; here nothing is left at once.
func (r *keyring) expire(out *Output, at int64) {
	gone := func(kp *Keypair) bool {
		if kp == nil || time.Duration(at-kp.born) < RejectAfterTime {
			return false
		}
		out.drop(kp)
		return true
	}
	if gone(r.current) {
		r.current = nil
	}
	if gone(r.next) {
		r.next = nil
	}
	r.old = slices.DeleteFunc(r.old, gone)
}

// clear drops all keys.
func (r *keyring) clear(out *Output) {
	for kp := range r.all {
		out.drop(kp)
	}
	*r = keyring{}
}

// drop ends kp.
func (o *Output) drop(kp *Keypair) {
	if kp != nil {
		kp.dead.Store(true)
		o.Removed = append(o.Removed, kp.localIndex)
	}
}
