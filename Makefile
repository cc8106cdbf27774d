# Needs git, and python3 3.11 or later with venv; Docker only for the targets that name it.
# What the set-up says goes to stderr, so that stdout is the command's own.

PYTHON ?= python3
TAG ?= dev
REGISTRY ?=
DEMO_SECONDS ?= 10
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -I scripts/install.py install
# What would have this Python take its modules, or its behaviour, from elsewhere.
unexport PYTHONHOME PYTHONPATH PYTHONPLATLIBDIR PYTHONSTARTUP PYTHONINSPECT PYTHONOPTIMIZE PYTHONWARNINGS
unexport PYTHONUSERBASE PYTHONEXECUTABLE PYTHONCASEOK PYTHONSAFEPATH PYTHONIOENCODING PYTHONDEVMODE
SAY := printf 'twocans: %s\n' >&2

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' core/pyproject.toml)
REVISION = $(shell git rev-parse --verify --quiet HEAD 2>/dev/null || echo unknown)
CREATED = $(shell date -u +%Y-%m-%dT%H:%M:%SZ)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check format images publish tagged up down system dist bench bench-accuracy bench-cost truth truth-full docs lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s  %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.packages ## Measure a path between both ends on this machine (DEMO_SECONDS=10)
	@$(BIN)/python scripts/demo.py --seconds $(DEMO_SECONDS)

test: $(VENV)/.dev ## Run the tests (ARGS="-k name" goes to pytest)
	$(BIN)/python -m pytest tests $(ARGS)

check: $(VENV)/.dev ## Check format, lint, types, compose file and manifests; change nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest tests/k8s --quiet
	@if docker compose version >/dev/null 2>&1; \
	then echo docker compose config -q; docker compose --profile dashboards config -q; \
	else echo 'docker compose config -q: skipped, there is no docker compose here'; fi

format: $(VENV)/.dev ## Format the code and apply ruff's safe fixes
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

images: ## Build both images (TAG=dev)
	$(build) $(call build_args,server) .
	$(build) $(call build_args,client) .

publish: override TAG = $(VERSION)
publish: build = docker buildx build --push --platform linux/amd64,linux/arm64 \
	--sbom=true --provenance=mode=max
publish: tagged images ## Build both images for amd64 and arm64, with SBOM and provenance, and push them (REGISTRY=ghcr.io/you/)

tagged:
	@git tag --points-at HEAD | grep --quiet --line-regexp --fixed-strings 'v$(VERSION)' || \
	    { $(SAY) 'the version is $(VERSION), and no tag v$(VERSION) points at this commit'; exit 1; }

build = docker build
build_args = --file $(1)/Dockerfile --tag $(REGISTRY)twocans-$(1):$(TAG) \
	--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --build-arg CREATED=$(CREATED)

dist: $(VENV)/.packages ## Build into dist/ the wheels, and each program as one file for any Python from 3.11 on
	@$(BIN)/python -I scripts/dist.py

up: images ## Start the pair with Docker Compose, and Prometheus and Grafana where they can be pulled
	$(compose) up --detach --no-build
	@for service in prometheus grafana; do \
	    $(compose) up --detach --no-build $$service || $(SAY) "$$service was not started"; done

down: ## Stop what `up` started
	$(compose) --profile dashboards down

compose = TWOCANS_TAG=$(TAG) docker compose

system: $(VENV)/.dev ## Test the built images (TAG=dev); fail without Docker
	TWOCANS_REQUIRE_DOCKER=1 TWOCANS_TAG=$(TAG) $(BIN)/python -m pytest tests -m docker $(ARGS)

bench: $(VENV)/.packages ## Measure speed and accuracy (ARGS go to bench/run.py)
	@$(BIN)/python bench/run.py $(ARGS)

bench-accuracy: $(VENV)/.packages ## Measure every figure's error against a packet capture, 3 minutes, as root
	@$(BIN)/python -m bench.accuracy $(ARGS)

bench-cost: $(VENV)/.packages ## Measure the CPU time of a probe beside blackbox_exporter's, 8 minutes
	@$(BIN)/python -m bench.cost $(ARGS)

truth: $(VENV)/.packages ## See how often faults made on purpose are named right, 14 minutes, as root
	@$(BIN)/python -m lab.truth $(ARGS)

truth-full: $(VENV)/.packages ## The same of every case, several times, and with evidence taken away; 90 minutes
	@$(BIN)/python -m lab.truth --full $(ARGS)

docs: $(VENV)/.dev ## Write anew what is generated: docs, dashboards, PrometheusRule
	$(BIN)/python -m scripts.generate_docs $(ARGS)
	$(BIN)/python -m scripts.generate_rules $(ARGS)
	$(BIN)/python -m scripts.dashboards $(ARGS)

lock: $(VENV)/.lock ## Write requirements/*.txt from *.in (ARGS=--upgrade for newer versions)
	@set -e; cd requirements; \
	for name in dev lock; do $(compile) $$name.in --output-file $$name.txt; done; \
	for name in run build demo; do $(compile) --constraint dev.txt $$name.in --output-file $$name.txt; done

# dev has every package, so it is resolved first and holds the others to its versions. Hashes of
# every file of a version: one lock serves each Python and machine. No address of an index.
compile = ../$(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make lock' $(ARGS)

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -prune -exec rm -rf {} +

# Set-up. Each stamp is newer than what it was made from; none is made when a step failed.
# Two things that no file's age shows: the Python it was made from is gone; the folder was moved.

stale := $(shell [ -x $(BIN)/python ] || rm -rf $(VENV); \
	[ "$$(cat $(VENV)/.packages 2>/dev/null)" = '$(CURDIR)' ] || rm -f $(VENV)/.packages)

define CAN_MAKE_VENV
import sys
if sys.version_info < (3, 11):
    sys.exit("twocans: Python 3.11 or later is needed, and %s is %s. Name another: make PYTHON=python3.13"
             % (sys.executable, sys.version.split()[0]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("twocans: this Python has no venv. On Debian or Ubuntu: apt install python%d.%d-venv"
             % sys.version_info[:2])
endef
export CAN_MAKE_VENV

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { $(SAY) 'no $(PYTHON) here. Python 3.11 or later is needed'; exit 1; }
	@$(PYTHON) -c "$$CAN_MAKE_VENV"
	@$(PYTHON) -m venv --clear $(VENV) >&2 || { rm -rf $(VENV); $(SAY) '$(PYTHON) -m venv failed'; exit 1; }

$(VENV)/.demo: requirements/demo.txt $(BIN)/python
	@$(SAY) 'installing into $(VENV), only when $< changes'
	@$(INSTALL) --require-hashes --requirement $< >&2
	@touch $@

$(VENV)/.packages: core/pyproject.toml server/pyproject.toml client/pyproject.toml $(VENV)/.demo
	@$(INSTALL) --no-build-isolation --editable core --editable server --editable client >&2
	@echo '$(CURDIR)' >$@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.packages
	@$(SAY) 'installing the tools into $(VENV), only when $< changes'
	@$(INSTALL) --require-hashes --requirement $< >&2
	@touch $@

$(VENV)/.lock: requirements/lock.txt $(BIN)/python
	@$(BIN)/python -m venv $(VENV)/lock >&2
	@$(VENV)/lock/bin/python -I scripts/install.py install --require-hashes --requirement $< >&2
	@touch $@
