package join

import (
	"errors"
	"fmt"

	"meshd/keys"
)

// Why joining fails, one line each. The errors of keys about invites (ErrUnknown,
// ErrExpired, ErrUsed, ErrRevoked) are the others.
var (
	ErrWrongNetwork = errors.New("this is another network than the one to join")
	ErrProof        = errors.New("the proof of the invite was not accepted")
	ErrDenied       = errors.New("an admin has denied the request")
	ErrRevokedNode  = errors.New("this node has been revoked; it can come back only with new keys: remove its state and join anew")
	ErrNotApproved  = errors.New("no admin has approved the request in time; run the command again and tell an admin the six words")
	ErrNoSigner     = errors.New("no admin of the network could be reached")
	ErrBusy         = errors.New("too many requests are waiting at the admin; try again in some minutes")
	ErrRefused      = errors.New("the request was not understood; is the other side of another version?")
)

// Code says in a refusal why.
type Code uint8

// Codes of refusals. After the last three the joiner goes on asking.
const (
	CodeWrongNetwork Code = iota + 1
	CodeUnknownInvite
	CodeExpiredInvite
	CodeUsedInvite
	CodeRevokedInvite
	CodeProof
	CodeDenied
	CodeBusy
	CodeMalformed
	CodeRevokedNode
	CodeAgain       // the desk has forgotten the request: begin anew
	CodeUnreachable // the introducer finds no signer
	CodeTrouble     // the signer cannot write its log, or the like
)

// err is the joiner's error for a code; nil when it is to go on.
func (c Code) err() error {
	switch c {
	case CodeWrongNetwork:
		return ErrWrongNetwork
	case CodeUnknownInvite:
		return keys.ErrUnknown
	case CodeExpiredInvite:
		return fmt.Errorf("invite has %w", keys.ErrExpired)
	case CodeUsedInvite:
		return keys.ErrUsed
	case CodeRevokedInvite:
		return keys.ErrRevoked
	case CodeProof:
		return ErrProof
	case CodeDenied:
		return ErrDenied
	case CodeBusy:
		return ErrBusy
	case CodeRevokedNode:
		return ErrRevokedNode
	case CodeAgain, CodeUnreachable, CodeTrouble:
		return nil
	}
	return ErrRefused
}

// notice is what a joiner that goes on can show about a code.
func (c Code) notice() string {
	switch c {
	case CodeUnreachable:
		return "the admin's node cannot be reached from here at the moment"
	case CodeTrouble:
		return "the admin's node has trouble; its log says which"
	}
	return ""
}

// codeOf is the refusal for an error of the issue log.
func codeOf(err error) Code {
	switch {
	case errors.Is(err, keys.ErrUnknown):
		return CodeUnknownInvite
	case errors.Is(err, keys.ErrExpired):
		return CodeExpiredInvite
	case errors.Is(err, keys.ErrUsed):
		return CodeUsedInvite
	case errors.Is(err, keys.ErrRevoked):
		return CodeRevokedInvite
	}
	return CodeTrouble
}
