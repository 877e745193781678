# Two commands matter: `make demo` builds meshd and runs its main job on this
# machine; `make test` installs what the tests need and runs them all.

GO      ?= go
TOOL    := $(GO) tool -modfile=tools/go.mod
FUZZ    ?= 1s
TARGETS := linux/amd64 linux/arm64 linux/mipsle darwin/arm64 windows/amd64 freebsd/amd64

.PHONY: build demo test deps format vet unit integration fuzz soak bench story micro micro-base budget clean

build:
	$(GO) build -trimpath -o bin/meshd ./cmd/meshd

demo: build
	./bin/meshd demo

test: deps format vet unit integration fuzz

# What the tests run besides Go: Debian's packages, as root.
deps:
	$(GO) run ./integration/deps

format:
	@out="$$($(TOOL) gofumpt -l .)"; test -z "$$out" || { echo "not gofumpt-formatted:"; echo "$$out"; exit 1; }

vet:
	@for t in $(TARGETS); do echo "vet $$t"; GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) vet ./... || exit 1; done
	$(TOOL) staticcheck -checks all ./...

# Tests in simulated time run on one processor under the race detector: in Go 1.26 the timers of a synctest bubble share
# one context of the detector, and it crashes (in __sanitizer::StackDepot) when two processors run timers at once.
# Crowds are smaller there, and long histories of one goroutine left out: the packages that have them (testing.Short) are
# tested whole besides. Allocations are counted without it.
UNITS   = $(filter-out ./integration% ./bench%,$(shell $(GO) list -f '{{.Dir}}' ./... | sed "s|^$$PWD|.|"))
having  = $(filter $(UNITS),$(shell grep -rl '$(1)' --include=*_test.go . | xargs -n1 dirname | sort -u))
BUBBLES = $(call having,"testing/synctest")
LONG    = $(call having,testing.Short())
NORACE  = $(call having,^//go:build !race)

unit:
	$(GO) test -race -short -timeout 15m $(filter-out $(BUBBLES),$(UNITS))
	$(GO) test -race -short -timeout 15m -exec 'env GOMAXPROCS=1' $(BUBBLES)
	$(GO) test -timeout 15m $(LONG)
	$(GO) test -timeout 5m -run Alloc $(NORACE)

# Tests that wait most of their time (t.Parallel) do so four at a time, also on two processors.
integration:
	$(GO) test -count=1 -timeout 25m -p 1 -parallel 4 ./integration/... ./bench/...

fuzz:
	$(GO) run ./integration/fuzz -time $(FUZZ)

# The same with long durations and many repeats, after an hour of traffic at full rate.
SOAK ?= 1h
soak:
	$(GO) run ./bench -soak $(SOAK)
	$(GO) test -count=20 -timeout 8h -v ./integration
	MESHD_REPEATS=20 $(GO) test -count=1 -timeout 1h -v -run 'TestOutages|TestCarriedLaptop|TestFrozen|TestManyPorts|TestFleet' ./integration
	MESHD_REPEATS=20 MESHD_MEMBERS=100 $(GO) test -count=1 -timeout 2h -v -run 'TestMatrix|TestRelay|TestDirectPathLost|TestIdleBehindNATs' ./integration
	MESHD_REPEATS=20 $(GO) test -count=1 -timeout 1h -v -run 'TestBridge$$|TestBridgeChanges|TestForwarderDiesUnheard|TestBridgedLANsJoined' ./integration
	MESHD_CROWD=50 $(GO) test -count=1 -timeout 1h -run TestCrowd -v ./mesh
	$(GO) test -count=1 -timeout 3h ./peer/wireguard -link.hours 24
	$(MAKE) fuzz FUZZ=5m

# Compares meshd with other tunnels (docs/performance.md): BENCH="-quick", BENCH="-variants veth,meshd".
bench:
	$(GO) run ./bench $(BENCH)

# meshd beside vde2 over ssh, on a slow link with losses (examples/home-prefix/README.md): 12 minutes.
STORY ?= 10s
story:
	$(GO) run ./bench -story $(STORY)

# Micro-benchmarks of switch, seal and open, cut and merge, fragments and the
# whole way, compared with a baseline when there is one: make micro-base keeps
# what make micro has measured last as that.
COUNT ?= 10
MICRO := ^Benchmark(FromDevice|Receive|SuperFrame|Cut|Merge|MergeNothing|Sum|Send|SendAndReceive|Seal|SealAndOpen|Split|Reassemble|HotPath)$$
micro:
	@mkdir -p bench/results
	$(GO) test -run '^$$' -bench '$(MICRO)' -benchtime 100ms -count $(COUNT) \
		./l2 ./l2/offload ./peer ./peer/wireguard ./peer/fragment ./bench/hotpath > bench/results/micro.txt || { cat bench/results/micro.txt; exit 1; }
	$(TOOL) benchstat $$(test ! -e bench/results/micro-base.txt || echo base=bench/results/micro-base.txt) now=bench/results/micro.txt

micro-base:
	cp bench/results/micro.txt bench/results/micro-base.txt

# Instructions per frame, which CI holds to bench/hotpath/budget.txt: write them
# down anew after a change that is meant to cost what it costs.
budget:
	$(GO) test -count=1 -run '^TestBudget$$' ./bench/hotpath -update
	cat bench/hotpath/budget.txt

clean:
	rm -rf bin
