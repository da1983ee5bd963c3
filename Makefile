# Every target works as the only command on a fresh machine: it makes .venv and installs into it when needed.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
SECONDS ?= 600
SEED ?=
BIN := $(VENV)/bin
# Several processes share the tests (tests/conftest.py says how many); make PARALLEL= runs them in one, for a debugger.
PARALLEL ?= --numprocesses auto --dist worksteal
# Tests start thousands of processes, which would all compile every module if they could not keep what they compile.
export PYTHONDONTWRITEBYTECODE =
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: help demo demo-iris demo-s3 docs test test-fast test-all attack chaos check lint types protocol-docs simulate bench bench-peers bench-path bench-bytecodes bench-graphs bench-bounds bench-placement bench-transfer bench-coordination bench-store bench-durable bench-restart bench-fragmentation bench-actors install clean
.DEFAULT_GOAL := help

help:
	@echo "make demo         the main job end to end, on the flights of New York in 2013 (examples/flights)"
	@echo "make demo-iris    weather data published with Iris, and kept when the cluster ends (examples/iris)"
	@echo "make demo-s3      CSV files in S3, filtered and published (examples/s3); a server of moto stands for S3"
	@echo "make test         the tests"
	@echo "make test-fast    those that start no process, server or cluster: about a minute on two idle cores"
	@echo "make test-all     the tests on every Python that is promised and that this machine has; ARGS=\"-- tests/client\""
	@echo "make attack       the long campaigns of tests/attack: ten minutes each, or SECONDS=N; SEED=N repeats one"
	@echo "make chaos        kill and stop processes of a working cluster for ten minutes, or SECONDS=N; SEED=N repeats one"
	@echo "make simulate     whole clusters in pretended time, with faults: a million events of a thousand seeds; ARGS=\"--help\""
	@echo "make check        lint, types and tests"
	@echo "make lint         ruff, and the contracts of layering (.importlinter)"
	@echo "make types        mypy"
	@echo "make docs         the documentation site, into site/: open site/index.html"
	@echo "make protocol-docs  docs/protocol.md from the definitions of the messages"
	@echo "make bench        every workload of the peers on Holdfast alone; ARGS=\"--help\" for more"
	@echo "make bench-peers  on the peers too, in turn, with the ratios (docs/performance.md)"
	@echo "make bench-path   where the time of one task goes, span by span, and what it costs each process"
	@echo "make bench-bytecodes  what the interpreter does for one task in each process, whatever else the machine does"
	@echo "make bench-graphs graphs of up to a million tasks: time and memory of each, and who has to wait meanwhile"
	@echo "make bench-bounds how long others wait while one client asks very much of the scheduler"
	@echo "make bench-placement  hard graphs beside distributed, time and memory (docs/performance.md)"
	@echo "make bench-transfer  objects from one host's store to another's, beside what the machine can do"
	@echo "make bench-coordination  locks, queues, variables and events beside distributed's, with the ratios"
	@echo "make bench-store  the object store's figures beside its peers' (docs/performance.md); ARGS=\"--help\" for more"
	@echo "make bench-durable  datasets written to a disk and read from it, beside what the disk can do"
	@echo "make bench-restart  how long a cluster stands still when its scheduler is killed"
	@echo "make bench-actors calls of actors beside distributed's and Ray's (docs/performance.md)"
	@echo "make bench-fragmentation  how the store's allocator bears a million operations"
	@echo "make install      a virtual environment in $(VENV) with everything needed to develop"
	@echo "make clean        remove it, and what tools have cached"

demo: $(VENV)/.demo
	$(BIN)/python examples/flights/demo.py

demo-iris: $(VENV)/.test
	$(BIN)/python examples/iris/demo.py $(ARGS)

demo-s3: $(VENV)/.test
	$(BIN)/python examples/s3/demo.py

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -m fast $(PARALLEL) $(ARGS)

test-all: $(VENV)/.test
	$(BIN)/nox $(ARGS)

attack: $(VENV)/.test
	HOLDFAST_ATTACK_SECONDS=$(SECONDS) HOLDFAST_ATTACK_SEED=$(SEED) $(BIN)/python -m pytest tests/attack $(ARGS)

chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

simulate: $(VENV)/.test
	$(BIN)/python -m tests.simulator $(ARGS)

check: lint types test

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(VENV)/.test
	$(BIN)/mypy

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "built site/index.html"

protocol-docs: $(VENV)/.test
	$(BIN)/python -m holdfast.cluster.protocol.document docs/protocol.md

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.cluster --without-peers $(ARGS)

bench-peers: $(VENV)/.test
	$(BIN)/python -m benchmarks.cluster $(ARGS)

bench-path: $(VENV)/.test
	$(BIN)/python -m benchmarks.path $(ARGS)

bench-bytecodes: $(VENV)/.test
	$(BIN)/python -m benchmarks.bytecodes $(ARGS)

bench-graphs: $(VENV)/.test
	$(BIN)/python -m benchmarks.graphs $(ARGS)

bench-bounds: $(VENV)/.test
	$(BIN)/python -m benchmarks.bounds $(ARGS)

bench-placement: $(VENV)/.test
	$(BIN)/python -m benchmarks.placement $(ARGS)

bench-transfer: $(VENV)/.test
	$(BIN)/python -m benchmarks.transfer $(ARGS)

bench-coordination: $(VENV)/.test
	$(BIN)/python -m benchmarks.coordination $(ARGS)

bench-store: $(VENV)/.test
	$(BIN)/python -m benchmarks.store $(ARGS)

bench-restart: $(VENV)/.test
	$(BIN)/python -m benchmarks.restart $(ARGS)

bench-durable: $(VENV)/.test
	$(BIN)/python -m benchmarks.durable $(ARGS)

bench-actors: $(VENV)/.test
	$(BIN)/python -m benchmarks.actors $(ARGS)

bench-fragmentation: $(VENV)/.test
	$(BIN)/python benchmarks/fragmentation.py

install: $(VENV)/.test $(VENV)/.demo

clean:
	rm -rf $(VENV) .nox build dist site *.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.test: $(VENV)/.venv pyproject.toml
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.venv:
	@test "$$(uname -s)" = Linux || { \
	  echo "Holdfast runs on Linux only (this is $$(uname -s))" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { \
	  echo "there is no $(PYTHON): install Python 3.11 or newer, or run 'make PYTHON=/path/to/python'" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Holdfast needs Python 3.11 or newer ($(PYTHON) is $$($(PYTHON) -V 2>&1)): run 'make PYTHON=/path/to/python'" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) can't make virtual environments: install its venv module (Debian, Ubuntu: python3-venv)" >&2; \
	  exit 1; }
	@touch $@
