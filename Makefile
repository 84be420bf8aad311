# `make help` lists the targets. Everything that is fetched or built lies outside the clone, under $(CACHE).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test e2e cluster image lint fmt generate bench bench-chat bench-embed bench-operator bench-vectors build release env doctor

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lakehouse
export CARGO_TARGET_DIR ?= $(CACHE)/target
export DUCKDB_LIB_DIR ?= $(CACHE)/libduckdb-1.5.5-r.5
LIBDUCKDB := $(DUCKDB_LIB_DIR)/$(if $(filter Darwin,$(shell uname -s)),libduckdb.dylib,libduckdb.so)
LAKEHOUSE := $(CARGO_TARGET_DIR)/release/lakehouse
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# With PROFILE=dev, debug binaries: quick to build, slow to run.
PROFILE := release
TAG := lakehouse:$(VERSION)$(if $(filter-out release,$(PROFILE)),-$(PROFILE))
IMAGE := $(CARGO_TARGET_DIR)/images/$(subst :,-,$(TAG)).tar

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

quickstart: release ## Build, then serve the quickstart's datasets on http://127.0.0.1:3110 until Ctrl-C
	$(LAKEHOUSE) up manifests/quickstart --data "$(CACHE)/quickstart" $(ARGS)

test: doctor-test lint ## Everything that must hold: format, lints, generated files, all tests
	cargo test --workspace --quiet

e2e: doctor-test $(LIBDUCKDB) ## The stories on a real Kubernetes: on that of KUBECONFIG, else on one of our own (root on Linux)
	e2e/run.sh test $(ARGS)

cluster: doctor-test $(LIBDUCKDB) ## Start a Kubernetes of our own with MinIO and Lakehouse on it, and say how to use it
	@LAKEHOUSE_CLUSTER=lakehouse KUBECONFIG= e2e/run.sh up

image: doctor $(LIBDUCKDB) ## Make the image lakehouse:<version>, without Docker and without a network
	cargo build --profile $(PROFILE) -p lakehouse -p lakehouse-operator
	@image/build.sh "$(CARGO_TARGET_DIR)/$(PROFILE:dev=debug)" "$(TAG)" "$(IMAGE)"
	@echo "$(TAG) lies in $(IMAGE): docker load, podman load or ctr images import reads it"

lint: $(LIBDUCKDB) ## Format and clippy, without warnings
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings

fmt: ## Format the sources
	cargo fmt --all

generate: $(LIBDUCKDB) ## Write the generated files anew (the CRDs' YAML, the charts' copies of it, install.yaml)
	UPDATE=1 cargo test --quiet -p lakehouse-crds
	UPDATE=1 cargo test --quiet -p lakehouse-parts --test charts is_current

bench: release ## Measure ingest and SQL beside their peers (fetches them from PyPI), and a build of an index
	workers/ingest/bench/run.sh
	workers/query/bench/run.sh
	workers/build/bench/run.sh

bench-chat: release ## Measure what chatd adds to a call, beside LiteLLM (fetches it from PyPI)
	workers/chat/bench/run.sh $(ARGS)

bench-embed: doctor $(LIBDUCKDB) ## Measure local embeddings beside sentence-transformers (fetches PyTorch from PyPI: 3 GB)
	workers/model/bench/run.sh

bench-operator: doctor-test $(LIBDUCKDB) ## Measure the operator: a thousand Datasets with played pods; one with real pods (root on Linux)
	cargo test --release --package lakehouse-operator --test thousand -- --ignored --nocapture
	e2e/run.sh bench

bench-vectors: doctor ## Measure the vector engine beside hnswlib, faiss, usearch and hnsw_rs (fetches them from PyPI)
	workers/ann/bench/run.sh $(ARGS)

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
	@$(call need,go,the tests build the servers of MinIO and Ollama and a Kubernetes with Go 1.25 or newer (https://go.dev/dl).)
	@$(call need,c++,the tests build an Ollama with it (Debian: apt-get install g++).)
	@$(call need,python3,the tests run the SDKs of OpenAI and Anthropic and Ollama with it (Debian: apt-get install python3-venv).)
	@$(call need,node,the tests run the JavaScript SDK of OpenAI with it (https://nodejs.org).)
