package mesh

import (
	"errors"
	"testing"
	"time"

	"meshd/keys"
)

// Members are not kept out because a clock is wrong, here or elsewhere; strangers are.
func TestVerifyByWrongClock(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	root, err := keys.NewRoot("home", now)
	if err != nil {
		t.Fatal(err)
	}
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	paper, err := root.IssueSigner(id.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.NewSigner(id, paper)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := signer.Issue(id.Public(), "home", keys.Roles{"member"}, now)
	if err != nil {
		t.Fatal(err)
	}
	trust := keys.Trust{Root: root.Public()}
	other, err := keys.NewRoot("other", now)
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{}
	for name, at := range map[string]time.Time{
		"right": now, "an hour behind": now.Add(-time.Hour - time.Minute), "1970": time.Unix(0, 0), "an hour ahead": now.Add(time.Hour),
		"ten years ahead": now.AddDate(10, 0, 0),
	} {
		if c, err := n.verify(trust)(chain, at); err != nil || c == nil || c.ID != id.Public().ID() {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := n.verify(keys.Trust{Root: other.Public()})(chain, at); !errors.Is(err, keys.ErrUntrusted) {
			t.Errorf("%s: of another network: %v", name, err)
		}
	}
}
