# Selvedge. `make help` lists the targets; nothing has to be installed beforehand but Go, and for `make test` what apt can install.

SHELL       := /bin/bash
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN         := $(CURDIR)/bin
GO_SOURCES   = $(shell git ls-files -co --exclude-standard '*.go' go.mod go.sum 'backend/chat/web' 'internal/admin/web' edge/client/selvedge.js)
PROTOS      := backend/pushv1/push.proto internal/peerv1/peer.proto
LINT_MODULE := internal/tools/lint
# Flags of what is run, such as DEV_FLAGS='--listen 127.0.0.1:9999', TEST_FLAGS='-run TestChaos', BENCH_FLAGS=-short.
DEV_FLAGS   ?=
TEST_FLAGS  ?=
BENCH_FLAGS ?=
SIM_FLAGS   ?=
FUZZ_TIME   ?= 10000x

.PHONY: help run test fuzz build check sim chaos storm bench bench-ring bench-sessions bench-push bench-backend consul promtool tools generate deps js clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## build and start `selvedge dev`: everything in one process, nothing to install
	@exec $(BIN)/selvedge dev $(DEV_FLAGS)

build: $(BIN)/selvedge $(BIN)/man/selvedge.1 ## bin/selvedge, static, with the version in it, and its manual pages in bin/man

$(BIN)/selvedge: $(GO_SOURCES)
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ .

$(BIN)/man/selvedge.1: $(BIN)/selvedge
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || date +%s)} $(BIN)/selvedge man $(@D)

test: deps consul js build ## every test, on real parts; installs or builds what it needs
	go test -race -timeout 30m $(TEST_FLAGS) ./...
	go test -C internal/bench/ring .
	go test -C deploy/verify .
	@$(MAKE) --no-print-directory fuzz

fuzz: ## what strangers send, heads of requests, key expressions, tokens and messages, FUZZ_TIME (10000x, or 10m) of each
	go test -run '^$$' -fuzz '^FuzzRequest$$' -fuzztime $(FUZZ_TIME) ./internal/httphead
	go test -run '^$$' -fuzz '^FuzzKey$$' -fuzztime $(FUZZ_TIME) ./internal/identity
	go test -run '^$$' -fuzz '^FuzzToken$$' -fuzztime $(FUZZ_TIME) ./internal/identity
	go test -run '^$$' -fuzz '^FuzzUsers$$' -fuzztime $(FUZZ_TIME) ./internal/bridge
	go test -run '^$$' -fuzz '^FuzzServeConn$$' -fuzztime $(FUZZ_TIME) ./internal/pushlink

check: tools ## format, vet, lint, generated code up to date, known vulnerabilities
	@echo '== format'; test -z "$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go') | tee /dev/stderr)"
	@echo '== vet'; go vet ./... && GOOS=darwin go vet ./... && go vet -C internal/bench/ring . && go vet -C internal/bench/backend . && go vet -C deploy/verify . && go vet -C backend/testdata/porting/before .
	@echo '== modules'; for module in . internal/bench/backend internal/bench/ring backend/testdata/porting/before deploy/verify; do go mod tidy -C $$module -diff || exit 1; done
	@echo '== lint'; $(BIN)/golangci-lint run ./...
	@echo '== generated code'; ./internal/tools/generate.sh check
	@echo '== known vulnerabilities'; ./internal/tools/vulnerabilities.sh

bench: build ## the edge beside nginx, HAProxy, Caddy and httputil.ReverseProxy (ten minutes); JSON and plot go to bench/out
	@./internal/tools/apt.sh nginx:nginx-light haproxy:haproxy ip:iproute2
	go run ./internal/bench/cmd/bench proxies $(BENCH_FLAGS)

bench-ring: ## the ring beside those of nginx, HAProxy, Envoy, Maglev and five Go packages
	go run -C internal/bench/ring .

bench-sessions: build ## what an idle session costs behind the edge, nginx and HAProxy, and 60,000 held at once
	@./internal/tools/apt.sh nginx:nginx-light haproxy:haproxy ip:iproute2
	go run ./internal/bench/cmd/bench sessions $(BENCH_FLAGS)

bench-push: build ## what a push costs with 1 to 16 backends, to the owner and by Redis and RabbitMQ fan-out (ten minutes)
	@./internal/tools/apt.sh redis-server:redis-server rabbitmq-server:rabbitmq-server
	go run ./internal/bench/cmd/bench push $(BENCH_FLAGS)

bench-backend: build ## package backend beside gorilla/websocket, coder/websocket and write(2), what it must reach, and pushes to 16,000 users (five minutes)
	go run -C internal/bench/backend . $(BENCH_FLAGS)
	go run ./internal/bench/cmd/bench push -ways Selvedge -users 16000 -backends 4 -out bench/out/backend $(BENCH_FLAGS)

sim: ## the ownership protocol in 10,000 simulated worlds (SIM_FLAGS='-sim.first=20001')
	go test -count=1 -timeout 60m -run '^TestSim$$' -v ./internal/homing -sim.seeds=10000 $(SIM_FLAGS)

chaos: deps consul build ## a minute of killing, stopping, draining, restarting and cutting off real processes under pushes
	@set -o pipefail; SELVEDGE_CHAOS=60s go test -count=1 -run '^Test(Chaos|RollingRestart)$$' -v ./internal/systemtest \
		| sed -E 's/^ *chaos_host_test.go:[0-9]+: //' | grep -vE '^\s*(\{|$$)'

storm: deps consul build ## 5,000 clients that connect at once, to the edge and to nginx
	SELVEDGE_STORM=5000 go test -count=1 -run '^TestReconnectStorm$$' -v ./internal/systemtest

generate: tools ## write the code that is generated from the protos
	./internal/tools/generate.sh write

# What tests and checks need. Each line says what it installs; what is there already is left alone.

deps: promtool
	@./internal/tools/apt.sh chromium:chromium node:nodejs npm:npm nginx:nginx-light haproxy:haproxy ip:iproute2 redis-server:redis-server rabbitmq-server:rabbitmq-server nats-server:nats-server php:php-cli slowhttptest:slowhttptest zsh:zsh fish:fish mandoc:mandoc
	@./internal/tools/apt.sh systemd-analyze:systemd strace:strace

consul: $(if $(shell command -v consul),,$(BIN)/consul)

$(BIN)/consul: internal/tools/go.mod internal/tools/go.sum
	@echo 'building the pinned Consul server (some minutes, once)'
	go build -C internal/tools -o $@ github.com/hashicorp/consul
	@touch $@

promtool: $(if $(shell command -v promtool),,$(BIN)/promtool)

$(BIN)/promtool:
	@echo "unpacking promtool, which tests Prometheus' rules"
	./internal/tools/promtool.sh $@

js: internal/systemtest/testdata/js/node_modules/.stamp

internal/systemtest/testdata/js/node_modules/.stamp: internal/systemtest/testdata/js/package.json internal/systemtest/testdata/js/package-lock.json
	@echo 'installing the JavaScript clients that the tests use'
	npm ci --prefix internal/systemtest/testdata/js --no-audit --no-fund
	@touch $@

tools: $(BIN)/.tools
	@./internal/tools/apt.sh protoc:protobuf-compiler

$(BIN)/.tools: $(LINT_MODULE)/go.mod $(LINT_MODULE)/go.sum
	@echo 'building linters and generators (some minutes, once)'
	@mkdir -p $(BIN)
	go build -C $(LINT_MODULE) -o $(BIN)/ tool
	@touch $@

clean: ## remove what was built
	rm -rf $(BIN) internal/systemtest/testdata/js/node_modules
