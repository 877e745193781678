package mesh

import (
	"crypto/sha256"
	"math"
	"strconv"
	"testing"

	"meshd/keys"
)

// The neighbourhoods of all members together are connected, whatever their number,
// and none is large. They stay connected when one member in ten is dead.
func TestNeighboursConnectAll(t *testing.T) {
	var all []keys.NodeID
	for n := 1; n <= 300; n++ {
		sum := sha256.Sum256([]byte(strconv.Itoa(n)))
		all = append(all, keys.NodeID(sum[:16]))
		graph := map[keys.NodeID][]keys.NodeID{}
		for _, self := range all {
			picked := neighbours(self, all, func(keys.NodeID) bool { return false })
			limit := int(math.Log2(float64(n))) + 5
			if least := min(n-1, 4); len(picked) > limit || len(picked) < least {
				t.Fatalf("%d members: %d neighbours, want %d to %d", n, len(picked), least, limit)
			}
			seen := map[keys.NodeID]bool{self: true}
			for _, p := range picked {
				if seen[p] {
					t.Fatalf("%d members: a neighbour is named twice or is itself", n)
				}
				seen[p] = true
				graph[self] = append(graph[self], p)
				graph[p] = append(graph[p], self)
			}
		}
		if got := reached(graph, all, nil); got != n {
			t.Fatalf("%d members: %d can be reached", n, got)
		}
		dead := map[keys.NodeID]bool{}
		for i := range n / 10 {
			dead[all[i*10+3]] = true
		}
		if got := reached(graph, all, dead); got != n-len(dead) {
			t.Fatalf("%d members, %d dead: %d can be reached", n, len(dead), got)
		}
	}
}

// reached counts who can be reached from the first of all.
func reached(graph map[keys.NodeID][]keys.NodeID, all []keys.NodeID, dead map[keys.NodeID]bool) int {
	seen := map[keys.NodeID]bool{all[0]: true}
	queue := []keys.NodeID{all[0]}
	for len(queue) > 0 {
		for _, next := range graph[queue[0]] {
			if !seen[next] && !dead[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
		queue = queue[1:]
	}
	return len(seen)
}

// Who is whose neighbour is mutual, nobody has more than the others, and one that comes changes little.
func TestNeighboursAreMutual(t *testing.T) {
	var all []keys.NodeID
	for n := range 200 {
		sum := sha256.Sum256([]byte(strconv.Itoa(n)))
		all = append(all, keys.NodeID(sum[:16]))
	}
	out := all[199]
	dead := all[50]
	pick := func(all []keys.NodeID) map[[2]keys.NodeID]bool {
		edges := map[[2]keys.NodeID]bool{}
		for _, self := range all {
			for _, p := range neighbours(self, all, func(id keys.NodeID) bool { return id == dead }) {
				edges[[2]keys.NodeID{self, p}] = true
			}
		}
		return edges
	}
	before, after := pick(all[:199]), pick(all)
	changed := 0
	for e := range after {
		if e[1] == dead {
			t.Fatal("one that is to be passed over is a neighbour")
		}
		if e[0] != dead && !after[[2]keys.NodeID{e[1], e[0]}] {
			t.Fatalf("%v is a neighbour of %v and not the other way round", e[1], e[0])
		}
		if !before[e] && e[0] != out && e[1] != out {
			changed++
		}
	}
	for e := range before {
		if !after[e] {
			changed++
		}
	}
	if changed > 2*12 {
		t.Errorf("%d sessions of others change when one comes", changed)
	}
}
