# Everything starts from Python 3.11 or 3.12, make and a package index:
#
#   make demo    train a thinker on this machine, no GPU needed, and show what it learned
#   make test    lint, then every test this machine can run
#   make evidence  the demo with three seeds, and docs/evidence.md of them (about an hour)
#
# Each target sets up what it needs, once.

PYTHON ?= python3
VENV ?= .venv
SET ?= cpu
RUN = $(VENV)/bin
ARGS ?=

DEPENDENCIES := $(VENV)/.set-$(SET)-$(shell cat requirements/$(SET).txt 2>/dev/null | cksum | cut -d' ' -f1)
PACKAGE := $(VENV)/.package-$(shell cat pyproject.toml 2>/dev/null | cksum | cut -d' ' -f1)
export UV_HTTP_TIMEOUT ?= 300

.PHONY: help setup demo evidence test test-fast test-slow lint format requirements clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

setup: $(PACKAGE)

demo: $(PACKAGE)
	$(RUN)/thinkedit demo $(ARGS)

SEEDS ?= 0 1 2
evidence: $(PACKAGE)
	for seed in $(SEEDS); do $(RUN)/thinkedit demo run_dir=runs/demo-seed-$$seed seed=$$seed $(ARGS) || exit 1; done
	$(RUN)/thinkedit evidence $(SEEDS:%=runs/demo-seed-%) --out docs/evidence.md

test: lint test-fast test-slow

# Seconds each: run while you work.
test-fast: $(PACKAGE)
	$(RUN)/python -m pytest -n 2 --dist loadfile --durations 15 -m "not slow and not e2e" $(ARGS)

# Whole programs, two at a time: each spends much of its time on one core, starting.
test-slow: $(PACKAGE)
	$(RUN)/python -m pytest -n 2 --dist loadfile --durations 15 -m "slow or e2e" $(ARGS)

lint: $(PACKAGE)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

format: $(PACKAGE)
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

# Compiles the pinned sets anew; versions already pinned stay where they can.
requirements: export UV_CUSTOM_COMPILE_COMMAND = make requirements
requirements: $(PACKAGE)
	cd requirements && for set in cpu gpu; do \
	  $(abspath $(RUN))/uv pip compile --quiet --python-version 3.11 --python-platform linux \
	    --override $$set-overrides.txt $$set.in -o $$set.txt --no-annotate --no-emit-index-url || exit 1; \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# --no-deps: the list is complete, and resolving again would trip over pins that contradict each
# other on purpose (docs/install.md). --compile-bytecode: a run starts a dozen processes, and where
# PYTHONDONTWRITEBYTECODE is set each would compile torch, verl and vLLM anew.
$(DEPENDENCIES): requirements/$(SET).txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || { \
	  echo "thinkedit needs Python 3.11 or 3.12, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)"; \
	  echo "name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(RUN)/uv || $(RUN)/python -m pip install --quiet uv
	$(RUN)/uv pip install --python $(RUN)/python --no-deps --compile-bytecode -r requirements/$(SET).txt
	rm -f $(VENV)/.set-* && touch $@

$(PACKAGE): $(DEPENDENCIES) pyproject.toml
	$(RUN)/uv pip install --quiet --python $(RUN)/python --no-deps -e .
	rm -f $(VENV)/.package-* && touch $@
