package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"

	"meshd/bench/report"
	"meshd/integration/lab"
	"meshd/keys"
	"meshd/mesh/api"
	"meshd/mesh/record"
)

// crowded is a node that knows many members and carries nothing.
type crowded struct {
	Machine  report.Machine `json:"machine"`
	Members  int            `json:"members"`
	KnownS   float64        `json:"known_s"`    // from the start until it lists them all
	MemoryMB float64        `json:"memory_mib"` // after a while
	PeakMB   float64        `json:"peak_mib"`   // from the start
	CPUShare float64        `json:"cpu_share"`  // of a core, then
}

const (
	crowdSettle = 15 * time.Second // until what the start has brought is over
	crowdWatch  = 15 * time.Second
)

// runMembers is `bench -members N`.
func runMembers(ctx context.Context, c *config, out io.Writer) error {
	dir, err := os.MkdirTemp("", "meshd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := &meshd{}
	if err := m.Find(ctx, &Tools{Dir: dir, Install: c.install, Paths: c.paths}); err != nil {
		return err
	}
	got, err := crowd(ctx, m.binary, c.members, crowdSettle, crowdWatch)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.out, 0o755); err != nil {
		return err
	}
	if err := create(filepath.Join(c.out, "members.json"), func(w io.Writer) error { return json.NewEncoder(w).Encode(got) }); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d members known after %.1f s: %.1f MiB idle, %.1f at most, %.2f %% of a core\n",
		got.Members, got.KnownS, got.MemoryMB, got.PeakMB, 100*got.CPUShare)
	return nil
}

// crowd measures a node that knows so many members, none of whom answers.
func crowd(ctx context.Context, binary string, members int, settle, watch time.Duration) (got *crowded, err error) {
	pair, err := newPair(ctx, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	host := pair.Hosts[0]
	node := lab.NewNode(host, binary, pair.File(host, "state"))
	if err := node.Up("--no-portmap"); err != nil {
		return nil, err
	}
	if err := node.Ready(ctx); err != nil {
		return nil, err
	}
	if err := node.Terminate(); err != nil {
		return nil, err
	}
	if err := populate(node.State, members, time.Now()); err != nil {
		return nil, fmt.Errorf("make %d members: %w", members, err)
	}
	began := time.Now()
	if err := node.Up("--resume", "--no-portmap"); err != nil {
		return nil, err
	}
	got = &crowded{Machine: machine(ctx), Members: members}
	if err := knows(ctx, node, members); err != nil {
		return nil, err
	}
	got.KnownS = time.Since(began).Seconds()
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	return got, got.watch(ctx, node.PID(), watch)
}

// watch measures the node.
func (c *crowded) watch(ctx context.Context, pid int, d time.Duration) error {
	before, err := takeSnapshot([]int{pid}, nil)
	if err != nil {
		return err
	}
	if err := pause(ctx, d); err != nil {
		return err
	}
	after, err := takeSnapshot([]int{pid}, nil)
	if err != nil {
		return err
	}
	used := after.since(before)
	c.CPUShare = used.tunnel.Seconds() / used.wall.Seconds()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return err
	}
	kB, _ := parseField(string(text), "VmRSS:")
	peak, err := parsePeak(string(text))
	c.MemoryMB, c.PeakMB = float64(kB)/1024, float64(peak)/(1<<20)
	return err
}

// pause waits, or ends with the context.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// knows waits until a node lists so many members.
func knows(ctx context.Context, node *lab.Node, members int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var status api.Status
		if err := node.JSON(ctx, &status, "status"); err == nil && len(status.Peers) >= members {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait for %d members: %w\n%s", members, err, node.Output())
		}
	}
}

// populate writes members into the state of a founder that does not run: their certificates, and where they could be
// reached if they were there.
func populate(state string, members int, now time.Time) (err error) {
	store, err := keys.Open(state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	identity, err := store.LoadOrCreateIdentity()
	if err != nil {
		return err
	}
	certificate, err := store.Load("signer")
	if err != nil {
		return err
	}
	signer, err := keys.NewSigner(identity, certificate)
	if err != nil {
		return err
	}
	var membership struct {
		Root []byte `cbor:"1,keyasint"`
	}
	raw, err := store.Load("membership")
	if err != nil {
		return err
	}
	if err := cbor.Unmarshal(raw, &membership); err != nil {
		return err
	}
	var cache struct {
		Records [][]byte `cbor:"1,keyasint"`
	}
	network := keys.Trust{Root: membership.Root}.NetworkID()
	for n := range members {
		records, err := member(signer, network, n, now)
		if err != nil {
			return err
		}
		cache.Records = append(cache.Records, records...)
	}
	if raw, err = cbor.Marshal(cache); err != nil {
		return err
	}
	return store.Save("members", raw)
}

// member is the records of one.
func member(signer *keys.Signer, network keys.NetworkID, n int, now time.Time) ([][]byte, error) {
	id, err := keys.NewIdentity()
	if err != nil {
		return nil, err
	}
	chain, err := signer.Issue(id.Public(), fmt.Sprintf("member%d", n), nil, now)
	if err != nil {
		return nil, err
	}
	certificate, err := record.FromCertificate(chain)
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(1 + n>>8), byte(n)}), 51830)
	node, err := record.SignNode(id, network, record.Version{Epoch: 1, Counter: 1}, record.Node{
		Endpoints: []record.Endpoint{{Addr: at, Kind: record.KindHost}}, Software: "bench",
	})
	return [][]byte{certificate, node}, err
}
