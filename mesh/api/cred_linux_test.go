package api

import (
	"os"
	"testing"
)

func TestRightsOf(t *testing.T) {
	const owner, group = 1000, 2000
	for _, tt := range []struct {
		name string
		c    credential
		want rights
	}{
		{"root", credential{uid: 0, known: true}, mayChange},
		{"owner", credential{uid: owner, known: true}, mayChange},
		{"member of the group", credential{uid: 7, groups: []int{3, group}, known: true}, mayRead},
		{"anyone else", credential{uid: 7, groups: []int{3}, known: true}, mayNothing},
		{"root's group is not root", credential{uid: 7, groups: []int{0}, known: true}, mayNothing},
		{"not known by this system", credential{}, mayChange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := rightsOf(tt.c, owner, group); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got := rightsOf(credential{uid: 7, groups: []int{1}, known: true}, owner, -1); got != mayNothing {
		t.Errorf("no group: got %v", got)
	}
}

func TestReadersLeaveRoomForTheOwner(t *testing.T) {
	l := &limiter{owner: os.Geteuid()}
	for i := range maxReaderConns {
		if !l.take(mayRead) {
			t.Fatalf("reader %d refused", i)
		}
	}
	if l.take(mayRead) || l.take(mayNothing) {
		t.Error("one reader too many")
	}
	for i := range maxConns - maxReaderConns {
		if !l.take(mayChange) {
			t.Fatalf("owner's connection %d refused", i)
		}
	}
	if l.take(mayChange) {
		t.Error("one too many in all")
	}
	l.give(mayRead)
	if !l.take(mayRead) {
		t.Error("no room after one has gone")
	}
}
