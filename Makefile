# Tailsight. `make` or `make help` lists what there is to do.
.DEFAULT_GOAL := help
.PHONY: help up grafana test lint test-faults bench lock clean

# The first Python of at least 3.11; set PYTHON=... to choose another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data
export TAILSIGHT_DATA ?= $(DATA)

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

up: $(VENV)/runtime.stamp ## Set everything up and run: server, embedded store, agent and a live order path
	@$(BIN)/tailsight up $(ARGS)

grafana: ## Start a Grafana of this machine with the dashboards, beside a running `make up`
	@DATA="$(DATA)" ./deploy/grafana/run.sh

test: $(VENV)/dev.stamp lint ## Set everything up, check style and types, run the tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/dev.stamp ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd collector/probe/src && ../../../$(BIN)/mypy --config-file ../../../pyproject.toml --cache-dir ../../../.mypy_cache \
		--exclude '^$$' -p tailsight_probe

test-faults: $(VENV)/dev.stamp ## Run the slow fault-injection tests
	$(BIN)/python -m pytest -m fault --timeout 3600 $(ARGS)

bench: $(VENV)/dev.stamp ## Run the benchmarks and print their ratios
	$(BIN)/python -m pytest -m bench --timeout 3600 -s $(ARGS)

lock: ## Resolve the dependencies again into requirements/*.txt (needs uv)
	./requirements/lock.sh

clean: ## Remove the virtual environment and caches; data stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no Python of at least 3.11 found; install python3.11 and its venv module" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The lock files pin every package with its hash; the two distributions of this repository come without resolving.
$(VENV)/runtime.stamp: requirements/runtime.txt pyproject.toml $(wildcard collector/probe/pyproject.toml collector/probe/setup.py collector/probe/src/*/*) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall ./collector/probe
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@
