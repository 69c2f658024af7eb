# `make help` lists the targets. Everything is installed into .venv; see scripts/setup.sh for PYTHON and ASKAHEAD_GPU.
.DEFAULT_GOAL := help
.PHONY: help setup demo serve test lint bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install everything into .venv
	@scripts/setup.sh

demo: setup ## start a server, stream a real data set into it, print answers as they change (DEMO_SECONDS=60 ends it)
	@exec .venv/bin/askahead demo

serve: setup ## start the server alone, on http://127.0.0.1:8080
	@exec .venv/bin/askahead serve

test: ## lint, then the whole test suite with the real engine
	@.ci/run

lint: setup ## style, types and the direction of imports
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: setup ## the benchmark, with the baselines beside it
	@exec .venv/bin/python -m bench

clean: ## remove .venv, caches and build outputs; data stays
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
