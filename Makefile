# Everything one does with this repository from a shell; `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help test prerequisites fmt lint doc unit bench demo

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

# One after the other, cheapest first, also under `make -j`: each step reuses what the one before it compiled.
test: ## Everything that a change must pass: format, lints, documentation, all tests
	@echo "== 1/5 prerequisites"
	@tests/prerequisites.sh
	@echo "== 2/5 format"
	cargo fmt --check
	@echo "== 3/5 lints"
	cargo clippy --locked --all-targets -- -D warnings
	@echo "== 4/5 documentation"
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps
	@echo "== 5/5 tests"
	cargo test --locked
	@echo "== all passed"

prerequisites: ## What the tests need; installs what is missing where it may (root on Debian)
	tests/prerequisites.sh

fmt: ## Format the code
	cargo fmt

lint: ## Lints with warnings denied
	cargo clippy --all-targets -- -D warnings

doc: ## Documentation with warnings denied
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps

unit: ## The fast tests alone, those that stand beside the code
	cargo test --lib

bench: ## Tidegate beside HAProxy and nginx (needs root for a network namespace; see benches/README.md)
	cargo bench --bench versus

demo: ## A proxy with two echo upstreams to play with, configuration and curl commands printed
	cargo run --release -- demo
