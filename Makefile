# `make` lists the targets. Everything is made inside this folder; paths are relative, so that it may hold a space.

PYTHON ?= python3
PY := .venv/bin/python
MODULES := $(sort $(wildcard pipelines/*.py transforms/*.py transforms/kernels/*.py))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help .venv demo bench bench-peers test test-all test-fast prism stores check-deploy lint type format clean FORCE

help: ## list the targets
	@sed -nE 's/^([a-z.-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

.venv: build/.package ## make the environment and install the package into it

demo: build/.package ## select from the functions of this Python's standard library, and evaluate
	$(PY) benchmarks/stdlib_corpus.py corpus
	.venv/bin/tithe select configs/demo.yaml
	.venv/bin/tithe evaluate configs/evaluate.yaml

bench: build/.bench ## measure speed and memory beside others; some 40 minutes, 35 GB of disk, a machine with nothing else to do
	$(PY) benchmarks/bench.py

bench-peers: build/.bench-peers ## measure beside faiss and Spark; needs Java
	$(PY) benchmarks/bench.py peers

test: build/.test ## run the tests that need nothing but Python
	$(PYTEST) $(IN_PARALLEL) -m "not (prism or stores)"

test-all: build/.test prism stores ## run all tests, those on Prism and on object stores too; needs Go
	$(PYTEST) $(IN_PARALLEL)

test-fast: build/.test ## run the tests that take no longer than a few seconds
	$(PYTEST) -m "not (slow or prism or stores)"

lint: build/.dev ## check the code's rules and its format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

type: build/.dev ## check the types of the installed package, of tests, benchmarks and deploy/
	$(PY) -m mypy -p tithe
	$(PY) -m mypy tests benchmarks
	$(PY) -m mypy deploy/check deploy/dataflow

format: build/.dev ## mend what lint can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## remove what was built and cached; the environment, corpus/ and out/ stay
	rm -rf build dist *.egg-info .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

prism: .cache/bin/prism ## build Beam's Prism runner, for tests; needs Go

.cache/bin/prism:
	$(GO_INSTALL) github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0

stores: .cache/bin/versitygw .cache/bin/fake-gcs-server ## build the object stores of the tests; needs Go

.cache/bin/versitygw:
	$(GO_INSTALL) github.com/versity/versitygw/cmd/versitygw@v1.8.0

.cache/bin/fake-gcs-server:
	$(GO_INSTALL) github.com/fsouza/fake-gcs-server@v1.56.1

DEPLOY_TOOLS := .cache/bin/fake-gcs-server .cache/check-deploy/.tools .cache/check-deploy/.flink

check-deploy: build/.dev $(DEPLOY_TOOLS) ## check images, templates and manifests; needs Go and Maven
	$(PYTEST) deploy/check

.cache/check-deploy/.tools: deploy/check/requirements.txt .venv/pyvenv.cfg
	$(PY) -m venv --clear .cache/check-deploy/tools
	.cache/check-deploy/tools/bin/python -m pip install -q -r deploy/check/requirements.txt
	touch $@

# What the Flink operator's custom resources may hold. A jar is a zip file.
.cache/check-deploy/.flink:
	mvn -q -B -Dmaven.repo.local="$$PWD/.cache/maven" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
		-Dartifact=org.apache.flink:flink-kubernetes-operator-api:1.10.0 -DoutputDirectory="$$PWD/.cache/check-deploy"
	cd .cache/check-deploy && $(PYTHON) -m zipfile -e flink-kubernetes-operator-api-1.10.0.jar .
	touch $@

# Go keeps what it fetches and builds in this folder too; without -modcacherw `make clean` could not remove it.
GO_INSTALL = GOPATH="$$PWD/.cache/go" GOBIN="$$PWD/.cache/bin" go install -modcacherw

IN_PARALLEL = -n 2 --dist loadfile # most of the time is the start of commands, on one core each

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

build/.bench: pyproject.toml .venv/pyvenv.cfg .venv/modules
	$(call install,[bench])
	touch $@

build/.bench-peers: pyproject.toml .venv/pyvenv.cfg .venv/modules
	$(call install,[bench-peers])
	touch $@

build/.dev: pyproject.toml .venv/pyvenv.cfg .venv/modules
	$(call install,[dev])
	touch build/.test $@
