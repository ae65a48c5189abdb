# Everything one does with this repository from a shell; `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help test prerequisites control-plane fmt lint doc unit fuzz bench demo cluster image layout

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

# One after the other, cheapest first, also under `make -j`: each step reuses what the one before it compiled.
test: ## Everything that a change must pass: format, lints, documentation, all tests
	@echo "== 1/7 prerequisites"
	@tests/prerequisites.sh
	@echo "== 2/7 format"
	cargo fmt --check
	@echo "== 3/7 lints"
	cargo clippy --locked --all-targets -- -D warnings
	@echo "== 4/7 documentation"
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps
	@echo "== 5/7 control plane"
	@tests/cluster/control-plane/build.sh
	@echo "== 6/7 optimized build, whose instructions are counted"
	cargo build --locked --profile quick --bin tidegate
	@echo "== 7/7 tests"
	cargo test --locked
	@echo "== all passed"

prerequisites: ## What the tests need; installs what is missing where it may (root on Debian)
	tests/prerequisites.sh

control-plane: ## The Kubernetes control plane of the tests; built once, about 10 minutes
	tests/cluster/control-plane/build.sh

fmt: ## Format the code
	cargo fmt

lint: ## Lints with warnings denied
	cargo clippy --all-targets -- -D warnings

doc: ## Documentation with warnings denied
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps

unit: ## The fast tests alone, those that stand beside the code
	cargo test --lib

# Coverage-guided, by libFuzzer on the stable toolchain. The targets, what must hold of them and their seeds are those of `make test`,
# which tries 2000 inputs of each. What reaches something new is kept under target/fuzz-corpus, where the next run begins.
TARGET ?= all
SECONDS ?= 60
fuzz: ## Inputs that reach what none did before: TARGET=NAME (all), SECONDS=N each, or INPUT=FILE again; needs a C++ compiler
	@tests/messages/fuzz.sh $(TARGET) $(SECONDS) $(INPUT)

bench: ## Tidegate beside HAProxy and nginx (needs root for a network namespace; see benches/README.md)
	cargo bench --bench versus

demo: ## A proxy with two echo upstreams to play with, configuration and curl commands printed
	cargo run --release -- demo

cluster: ## A Kubernetes cluster of three nodes with a gate on each, to play with; Ctrl-C removes it
	@tests/cluster/control-plane/build.sh
	@TIDEGATE_CLUSTER_ROLE=stay cargo test --locked --test cluster

image: ## The container image, an OCI archive in target/image, made without a container engine
	deploy/image.sh

layout: ## Sees anew which functions a start runs, for deploy/layout; when a test asks for it
	cargo build --release
	deploy/layout/record.sh target/$$(rustc -vV | sed -n 's/^host: //p')/release/tidegate
