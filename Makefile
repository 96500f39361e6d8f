# The environment is built once, and again when pyproject.toml or constraints.txt change.
#   PYTHON  the interpreter to build it with (3.11 or newer)
#   VENV    where it lies
#   ARGS    more arguments for the command of a target: make demo ARGS=--quick
#   DEMO_OUT  the folder of `make demo`
#   JOBS    the processes that run the tests
#   SEED    the seed of `make test-all`; a fresh one each time, printed, unless given

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
DEMO_OUT ?= out/demo
JOBS ?= 2
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')

PIP := $(VENV)/bin/pip install --disable-pip-version-check -c constraints.txt
PYTEST := $(VENV)/bin/pytest
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready
BENCHMARKS := $(sort $(wildcard benchmarks/[a-z]*.py))

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint docs bench
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

$(READY): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[dev,report,images,interop,dask,slurm]'
	touch $@

$(DOCS_READY): $(READY)
	$(PIP) -e '.[docs]'
	touch $@

demo: $(READY) ## the tutorial's wrong mode weights, explained and mended, in DEMO_OUT (out/demo)
	$(VENV)/bin/sdekit demo --out $(DEMO_OUT) $(ARGS)

test: $(READY) ## the fast tests and the doctests
	$(PYTEST) --doctest-modules sdekit
	$(PYTEST) -n $(JOBS) --dist worksteal -m 'not slow' tests $(ARGS)

test-all: $(READY) ## every test, 2000 examples a property, fresh seeds
	$(PYTEST) --doctest-modules sdekit
	$(PYTEST) -n $(JOBS) --hypothesis-profile=full --hypothesis-seed=$(SEED) tests $(ARGS)

lint: $(READY) ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(DOCS_READY) ## build docs/_build/html, then execute the pages
	$(VENV)/bin/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	$(VENV)/bin/python docs/run_pages.py

bench: $(READY) ## every benchmark
	@set -e; for script in $(BENCHMARKS); do \
		echo "== $$script"; $(VENV)/bin/python "$$script" $(ARGS); \
	done
