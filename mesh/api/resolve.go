package api

import (
	"fmt"
	"sort"
	"strings"
)

// Named is one member as [Resolve] sees it.
type Named struct {
	Name string
	ID   string
}

// Resolve finds which of list is meant by name: a whole name, else a whole id, else the only name or id that begins
// with it, ignoring case. It returns the index. Nobody is CodeUnknownName; several is CodeAmbiguousName, which is wrong usage.
// Two members may carry the same name: then the name alone is ambiguous and an id decides.
func Resolve(name string, list []Named) (int, error) {
	want := strings.ToLower(strings.TrimSuffix(name, ".mesh.internal"))
	if want == "" {
		return -1, &Error{Code: CodeUsage, What: "find member", Why: "the name is empty"}
	}
	stages := []func(n Named) bool{
		func(n Named) bool { return strings.ToLower(n.Name) == want },
		func(n Named) bool { return strings.ToLower(n.ID) == want },
		func(n Named) bool {
			return strings.HasPrefix(strings.ToLower(n.Name), want) || strings.HasPrefix(strings.ToLower(n.ID), want)
		},
	}
	for _, match := range stages {
		var hits []int
		for i, n := range list {
			if match(n) {
				hits = append(hits, i)
			}
		}
		switch {
		case len(hits) == 1:
			return hits[0], nil
		case len(hits) > 1:
			return -1, ambiguous(name, list, hits)
		}
	}
	return -1, &Error{
		Code: CodeUnknownName, What: fmt.Sprintf("find member %q", name), Why: "no member has that name or id",
		Remedy: "meshd status lists the members",
	}
}

// ambiguous is the error for a name that several members answer to; it lists at most five of them.
func ambiguous(name string, list []Named, hits []int) error {
	const show = 5
	var who []string
	for _, i := range hits {
		who = append(who, fmt.Sprintf("%q (%s)", list[i].Name, list[i].ID))
	}
	sort.Strings(who)
	if len(who) > show {
		who = append(who[:show], fmt.Sprintf("%d more", len(hits)-show))
	}
	return &Error{
		Code: CodeAmbiguousName, What: fmt.Sprintf("find member %q", name),
		Why: "it could be " + strings.Join(who, ", "), Remedy: "give more of the name, or an id",
	}
}
