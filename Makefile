# `make help` lists the targets. Everything that is fetched or built lies outside the clone, under $(CACHE).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test lint fmt generate bench build release env doctor

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lakehouse
export CARGO_TARGET_DIR ?= $(CACHE)/target
export DUCKDB_LIB_DIR ?= $(CACHE)/libduckdb-1.5.5-r.5
LIBDUCKDB := $(DUCKDB_LIB_DIR)/$(if $(filter Darwin,$(shell uname -s)),libduckdb.dylib,libduckdb.so)
LAKEHOUSE := $(CARGO_TARGET_DIR)/release/lakehouse

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: release ## Build, then serve the quickstart's datasets on http://127.0.0.1:3110 until Ctrl-C
	$(LAKEHOUSE) up manifests/quickstart --data "$(CACHE)/quickstart" $(ARGS)

test: doctor-test lint ## Everything that must hold: format, lints, generated files, all tests
	cargo test --workspace --quiet

lint: $(LIBDUCKDB) ## Format and clippy, without warnings
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings

fmt: ## Format the sources
	cargo fmt --all

generate: $(LIBDUCKDB) ## Write the generated files anew (the CRDs' YAML)
	UPDATE=1 cargo test --quiet -p lakehouse-crds

bench: release ## Measure ingest and SQL beside their peers (fetches them from PyPI)
	workers/ingest/bench/run.sh
	workers/query/bench/run.sh

build: doctor $(LIBDUCKDB) ## Build for development
	cargo build --workspace

release: doctor $(LIBDUCKDB) ## Build the `lakehouse` binary as users run it
	cargo build --release -p lakehouse
	@cmp -s "$(LIBDUCKDB)" "$(CARGO_TARGET_DIR)/release/$(notdir $(LIBDUCKDB))" || cp "$(LIBDUCKDB)" "$(CARGO_TARGET_DIR)/release/"

env: $(LIBDUCKDB) ## Print the exports that plain `cargo` needs: eval "$$(make -s env)"
	@echo 'export CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)" DUCKDB_LIB_DIR="$(DUCKDB_LIB_DIR)"'

$(LIBDUCKDB):
	@workers/query/libduckdb.sh "$(DUCKDB_LIB_DIR)" >/dev/null

# What the machine must have, each missing thing named in one sentence.
need = command -v $(1) >/dev/null || { echo "$(1) is missing: $(2)" >&2; exit 1; }

.PHONY: doctor-test
doctor:
	@$(call need,cargo,install Rust with rustup (https://rustup.rs); rust-toolchain.toml names the version.)
	@$(call need,cc,a C compiler links the binary (Debian: apt-get install gcc libc6-dev).)

doctor-test: doctor
	@$(call need,go,the tests build a MinIO server with Go 1.24 or newer (https://go.dev/dl).)
