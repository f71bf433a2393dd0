# Everything a newcomer needs: `make demo`, `make test`, `make lint`, `make hot`, `make bench`, `make matrix`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DRIVERS := target/drivers
# The runner that prints and times each test; `cargo test` is enough where it is not installed.
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
# Tests that send through a worker: they run once more with the other driver. The rest cannot tell the two apart.
ON_BOTH := binary(e2e) | binary(differential) | binary(isolation) | binary(drivers) | binary(login)
# `make demo SECONDS=5` ends by itself. SECONDS from the environment is the shell's own, so only the command line counts.
DEMO_ARGS := $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS))

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: ## the release binary, target/release/tenantry
	cargo build --release --locked

.PHONY: demo
demo: ## a cluster, 50 tenants and a load; SECONDS=n ends after n seconds, else Ctrl-C
	tests/setup.sh demo
	source $(DRIVERS)/env.demo && cargo run --quiet --release --locked -- demo $(DEMO_ARGS)

.PHONY: test
test: ## what the tests need, then all tests
	tests/setup.sh test
ifneq ($(NEXTEST),)
	source $(DRIVERS)/env.test && cargo test --locked --doc --quiet
	source $(DRIVERS)/env.test && cargo nextest run --locked --profile $${NEXTEST_PROFILE:-default}
	source $(DRIVERS)/env.test && TENANTRY_THREADS__DRIVER=epoll \
	    cargo nextest run --locked --profile $${NEXTEST_PROFILE:-default} -E '$(ON_BOTH)'
else
	source $(DRIVERS)/env.test && cargo test --locked -- --test-threads=2
	source $(DRIVERS)/env.test && TENANTRY_THREADS__DRIVER=epoll cargo test --locked -- --test-threads=2
endif

.PHONY: hot
hot: ## instructions of the hot functions against those committed; HOT_WRITE=1 commits to the new ones
	tests/setup.sh hot
	cargo bench --locked --profile hot --bench hot

.PHONY: hot-times
hot-times: ## nanoseconds and bytes of the scheduler, on this machine; holds them against nothing
	cargo bench --locked --profile hot --bench hot -- --times

.PHONY: test-long
test-long: ## the isolation, differential and budget tests at full length, with the binary built for speed
	tests/setup.sh test
	source $(DRIVERS)/env.test && TENANTRY_TEST_LENGTH=full \
	    cargo test --locked --release --test isolation --test differential --test budget_storm --test e2e -- --nocapture --test-threads=1

.PHONY: isolation-peer
isolation-peer: ## the clients of the isolation test behind PgBouncer: which remains they meet; the table of docs/isolation.md
	tests/setup.sh test
	tests/setup.sh bench
	source $(DRIVERS)/env.test && TENANTRY_TEST_LENGTH=full \
	    cargo test --locked --release --test isolation the_same_clients -- --ignored --nocapture

.PHONY: lint
lint: ## formatting, clippy, documentation, scripts; cargo-deny where it is installed
	cargo fmt --all --check
	cargo clippy --locked --all-targets
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	if command -v shellcheck >/dev/null; then shellcheck .ci/run tests/regress/run tests/regress/obtain $$(git ls-files '*.sh'); fi
	if command -v cargo-deny >/dev/null; then cargo deny --locked check bans licenses sources; fi

.PHONY: bench
bench: ## beside PgBouncer on this machine, ten minutes; prints the tables
	tests/setup.sh bench
	cargo build --release --locked
	source $(DRIVERS)/env.bench && cargo bench --locked --bench relay

.PHONY: bench-full
bench-full: ## the same with more repetitions and pgbench, half an hour; writes the tables of docs/performance.md
	BENCH_LENGTH=full $(MAKE) bench

.PHONY: bench-fairness
bench-fairness: ## quiet tenants beside noisy ones, on a hard number of servers; a quarter of an hour; writes docs/performance.md
	tests/setup.sh bench
	cargo build --release --locked
	source $(DRIVERS)/env.bench && BENCH_LENGTH=full BENCH_ONLY=fairness cargo bench --locked --bench relay

.PHONY: regress
regress: ## Postgres' own tests beside a direct connection; writes the tables of docs/regression.md
	tests/setup.sh test
	cargo build --release --locked
	source $(DRIVERS)/env.test && tests/regress/run $(PARTS)

.PHONY: matrix
matrix: ## every driver on every Postgres; writes the tables of docs/compatibility.md
	cargo build --release --locked
	tests/matrix/run

.PHONY: fmt
fmt: ## formats the code
	cargo fmt --all

.PHONY: clean
clean: ## removes what was built and the drivers
	cargo clean
