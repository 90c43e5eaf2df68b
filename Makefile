# Everything from a fresh clone: `make demo` shows one migration, `make test` proves everything.
# Each step of the set-up is quick when there is nothing to do.

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/installed.stamp

.NOTPARALLEL:
.PHONY: help setup setup-test packages packages-test native native-test demo test check bench model sim mutants crash clean

help:
	@echo "make demo    set up what is needed, then migrate a real QEMU guest"
	@echo "make test    set up RabbitMQ too, then run everything"
	@echo "make setup   virtual environment, Debian packages (as root), preload library, test guest"
	@echo "make check   ruff, mypy, the rules of the house"
	@echo "make bench   page-in and bus, each beside the bare thing in the same run; 50 deaths of a pager"
	@echo "make model   the executable model of the protocol: random histories"
	@echo "make sim     SEEDS=1000 simulated worlds full of faults"
	@echo "make mutants plant each known defect, say how many seeds it took to catch it"
	@echo "make crash   ROUNDS=200: migrations with cleanup while nodes, pagers and RabbitMQ are killed"
	@echo "make clean   remove what was built"

setup: packages $(INSTALLED) native

setup-test: packages-test $(INSTALLED) native-test

packages:
	@docker/packages.sh run

packages-test:
	@docker/packages.sh test

$(INSTALLED): pyproject.toml
	$$(docker/python.sh) -m venv $(VENV)
	$(PY) -m pip install -q -e '.[dev]'
	@touch $@

native:
	@$(PY) -m paging.native.build

native-test:
	@$(PY) -m paging.native.build --linux --qemu10

demo: setup
	$(VENV)/bin/swapferry run scenarios/scenes/first_migration.toml

test: setup setup-test
	$(PY) -m pytest

check: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q tests/test_tidy.py

bench: setup-test
	$(PY) -m benchmarks.page_in
	$(PY) -m benchmarks.bus
	$(PY) -m benchmarks.pager_deaths

model: $(INSTALLED)
	cd docs/model && ../../$(PY) checker.py 1 2000

SEEDS ?= 1000
JOBS ?= 2

sim: $(INSTALLED)
	$(VENV)/bin/swapferry chaos --seeds $(SEEDS) --profile brutal --jobs $(JOBS)

mutants: $(INSTALLED)
	$(PY) -W ignore -m tests.scenarios.sim.mutants

# Real nodes, a real RabbitMQ, real pagers; processes are killed while a guest moves and its slots come home.
ROUNDS ?= 200
GUEST ?= mixed
crash: setup-test
	$(PY) -m tests.crash.rounds --rounds $(ROUNDS) --guest $(GUEST) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis
