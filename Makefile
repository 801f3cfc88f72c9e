# make demo    the main job on real data, in a few minutes     DEMO_ROWS=20000 makes it shorter
# make test    everything that must hold; what .ci/run calls
# make check   the fast part of it: format, lints, types
# make bench   end-to-end measurements                         BENCH_SCALE=0.1 makes them shorter
# make torture what takes long or needs special tools   SUITES="order fuzz" chooses some
# make soak    10,000 rounds that must leave nothing behind
# make clean   forget the virtual environment and all builds
#
# Setting up is part of every target: it takes Rust and Python 3.11 or newer, builds into .venv and target/, and isn't
# repeated while nothing it depends on has changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# An environment without HOME or a login shell still finds rustup's cargo.
export PATH := $(PATH):$(or $(HOME),/root)/.cargo/bin:/usr/local/cargo/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PROFILE ?= release

RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock rust-toolchain.toml
PYTHON_TREES := python tests examples bench

.PHONY: help demo test check torture bench soak clean setup extension rust-check rust-test python-check stubs pytest

help:
	@sed -n '1,10s/^# \{0,1\}//p' Makefile

# --- setting up ------------------------------------------------------------------------------------------------------

$(STAMPS)/tools: pyproject.toml .ci/requirements
	@.ci/python-venv $(VENV)
	@mkdir -p $(STAMPS)
	$(BIN)/python -m pip install --quiet $$($(BIN)/python .ci/requirements)
	@# Its data files are read as they are; without what it depends on, pandas needn't be there.
	$(BIN)/python -m pip install --quiet --no-deps $$($(BIN)/python .ci/requirements demo)
	@touch $@

$(STAMPS)/extension-$(PROFILE): $(STAMPS)/tools pyproject.toml $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --quiet --profile $(PROFILE)
	@rm -f $(STAMPS)/extension-*; touch $@

setup: $(STAMPS)/tools
extension: $(STAMPS)/extension-$(PROFILE)

# --- what must hold --------------------------------------------------------------------------------------------------

check: rust-check python-check

rust-check: setup
	@.ci/step "rustfmt" cargo fmt --all --check
	@.ci/step "clippy" cargo clippy --quiet --workspace --all-targets -- -D warnings
	@.ci/optional "cargo-deny" cargo-deny cargo deny --log-level error check

python-check: setup
	@.ci/step "ruff" $(BIN)/ruff check --quiet $(PYTHON_TREES)
	@.ci/step "ruff format" $(BIN)/ruff format --quiet --check $(PYTHON_TREES)
	@.ci/step "mypy" $(BIN)/mypy
	@.ci/step "mypy of bench" $(BIN)/mypy bench

rust-test: setup
	@.ci/step "cargo test" cargo test --quiet

stubs: extension
	@.ci/step "stubtest" env MYPYPATH=python $(BIN)/python -m mypy.stubtest dataflow_serve._core \
	    --allowlist .ci/stubtest-allowlist

pytest: extension
	@.ci/step "pytest" $(BIN)/python -m pytest $(PYTEST)

# One after the other on purpose: each of them uses all cores by itself, and pytest's summary comes last.
test:
	@$(MAKE) --no-print-directory rust-check
	@$(MAKE) --no-print-directory python-check
	@$(MAKE) --no-print-directory rust-test
	@$(MAKE) --no-print-directory stubs
	@.ci/postgresql
	@$(MAKE) --no-print-directory pytest

# Suites say themselves what they need; tests/torture/README.md.
torture: extension
	@$(BIN)/python tests/torture/run.py $(SUITES)

soak: extension
	SOAK_ROUNDS=10000 $(BIN)/python -m pytest -q -s tests/e2e/test_soak.py --timeout 7200

# --- to look at ------------------------------------------------------------------------------------------------------

demo: extension
	@$(BIN)/python examples/flights/replay.py

bench: extension
	@$(BIN)/python bench/e2e/run_all.py

clean:
	rm -rf $(VENV) target
