# `make` lists the targets. Everything is made inside this folder; paths are relative, so that it may hold a space.

PYTHON ?= python3
PY := .venv/bin/python
MODULES := $(sort $(wildcard pipelines/*.py transforms/*.py transforms/kernels/*.py))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help .venv demo test test-fast lint type format clean FORCE

help: ## list the targets
	@sed -nE 's/^([a-z.-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

.venv: build/.package ## make the environment and install the package into it

demo: build/.package ## select from the functions of this Python's standard library, and evaluate
	$(PY) benchmarks/stdlib_corpus.py corpus
	.venv/bin/tithe select configs/demo.yaml
	.venv/bin/tithe evaluate configs/evaluate.yaml

test: build/.test ## run all tests
	$(PYTEST) -n 2 --dist loadfile # most of their time is the start of commands, on one core each

test-fast: build/.test ## run the tests that take no longer than a few seconds
	$(PYTEST) -m "not slow"

lint: build/.dev ## check the code's rules and its format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

type: build/.dev ## check the types of the installed package, its tests and its benchmarks
	$(PY) -m mypy -p tithe
	$(PY) -m mypy tests benchmarks

format: build/.dev ## mend what lint can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## remove what was built and cached; the environment, corpus/ and out/ stay
	rm -rf build dist *.egg-info .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Temporary files of the tests stay in this folder too.
PYTEST = mkdir -p .cache/tmp && TMPDIR="$$PWD/.cache/tmp" $(PY) -m pytest

# The environment. An editable install keeps links to the modules in build/, so the marks of what is installed
# lie there too: without build/ nothing counts as installed. build/ goes first, because it would keep deleted modules.

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is older than Python 3.10: name another, as in make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q 'pip>=23' # earlier ones do not pass editable_mode on

.venv/modules: FORCE | .venv/pyvenv.cfg # changes only when a module is added or removed
	@echo '$(MODULES)' | cmp -s - $@ || echo '$(MODULES)' > $@

define install
rm -rf build
$(PY) -m pip install -q -e '.$(1)' --config-settings editable_mode=strict
mkdir -p build && touch build/.package
endef

build/.package: pyproject.toml .venv/pyvenv.cfg .venv/modules
	$(call install,)

build/.test: pyproject.toml .venv/pyvenv.cfg .venv/modules
	$(call install,[test])
	touch $@

build/.dev: pyproject.toml .venv/pyvenv.cfg .venv/modules
	$(call install,[dev])
	touch build/.test $@
