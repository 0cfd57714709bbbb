# Every command does its own set-up. On Debian with Rust, Python >= 3.10 and make nothing is
# installed by hand: Python tools go into .venv, the servers that tests start come by apt.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := $(VENV)/.requirements
EXTENSION := $(VENV)/.extension
# The benchmarks' own: the peers in Python and in Rust, and the wheel that is weighed.
BENCH := target/bench
PEERS := $(BENCH)/venv/.requirements
# The features that a user of the crate would choose, besides the defaults and all of them.
COMBINATIONS := "" disk redis redis,tls-ring memcached kyoto zstd lz4
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find crates/*/src crates/*/Cargo.toml -type f)

.PHONY: demo
demo: $(EXTENSION) ## the notes application, cold and warm (ONCE=1: only the table; STORE=url; NOTES=folder)
	$(BIN)/python examples/notes/demo.py

.PHONY: test
test: $(EXTENSION) servers ## every test, in Rust and in Python
	cargo test --locked --workspace --exclude onetrip-py
	cargo test --locked -p onetrip --no-default-features --test features
	$(BIN)/python -m pytest

.PHONY: check
check: $(EXTENSION) ## linters and type checkers, strictly
	cargo fmt --check --all
	cargo fmt --check --manifest-path bench/peers/Cargo.toml
	cargo clippy --locked --workspace --all-targets -- -D warnings
	for features in $(COMBINATIONS); do \
	    cargo clippy --locked --quiet -p onetrip --no-default-features --features "$$features" -- -D warnings; \
	done
	cargo clippy --locked -p onetrip --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features -p onetrip
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/zizmor --quiet --offline --pedantic .github
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest onetrip._core

.PHONY: bench
bench: $(EXTENSION) $(PEERS) servers ## the benchmarks, peers and floor side by side (QUICK=1: a minute; ONLY=page,…)
	cargo run --locked --release --quiet -p pages
	cargo build --release --locked --manifest-path bench/peers/Cargo.toml --target-dir $(BENCH)/peers
	rm -rf $(BENCH)/wheel
	$(BIN)/maturin build --quiet --release --locked --out $(BENCH)/wheel
	PYTHONPATH=python WHEEL="$$(echo $(BENCH)/wheel/*.whl)" RUST_PEERS=$(BENCH)/peers/release/onetrip-peers \
	    $(BENCH)/venv/bin/python -m bench.run

.PHONY: lock
lock: ## requirements/*.txt from their *.in (UPGRADE=1: to the newest versions)
	$(PYTHON) -m venv --clear target/lock
	target/lock/bin/pip install --quiet uv==0.13.9
	for name in dev bench; do \
	    target/lock/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
	        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	        $(if $(UPGRADE),--upgrade) requirements/$$name.in --output-file requirements/$$name.txt; \
	done

.PHONY: clean
clean: ## remove all that was built
	rm -rf $(VENV) target dist python/onetrip/_core*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find python tests examples bench -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z]+):.* ## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

# What the commands stand on.

# The newest lock is installed into a new environment: nothing that it dropped stays behind.
$(TOOLS): requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo "onetrip needs Python 3.10 or newer: make PYTHON=python3.x …" >&2; exit 1; }
	@# Debian's Python comes without the part of venv that brings pip.
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || scripts/install python3-venv
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

$(PEERS): requirements/bench.txt $(TOOLS)
	$(PYTHON) -m venv --clear $(BENCH)/venv
	$(BENCH)/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

# Whoever removed the extension itself gets it anew.
ifeq ($(wildcard python/onetrip/_core.*.so),)
.PHONY: $(EXTENSION)
endif

# Always the release profile: tests, demo and benchmarks then share one build, and it is the real one.
$(EXTENSION): $(TOOLS) $(SOURCES)
	@# Rust needs a linker, and zstd and ring bring C.
	@command -v cc >/dev/null || scripts/install gcc libc6-dev
	@# One of another Python, or of before, is not to be imported instead.
	rm -f python/onetrip/_core*.so
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --locked
	touch $@

# Debian starts the service of a server that it installs, on its usual port of the loopback. Tests
# do not use that one: each starts its own, on a free port.
.PHONY: servers
servers:
	@command -v redis-server >/dev/null || scripts/install redis-server
	@command -v memcached >/dev/null || scripts/install memcached
	@# Counts the instructions of tests/test_counts.py. No server, but it comes the same way.
	@command -v valgrind >/dev/null || scripts/install valgrind
