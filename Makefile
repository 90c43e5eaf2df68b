# Everything from a fresh clone: `make demo` shows one migration, `make test` proves everything.
# Stamps under .venv and build keep the set-up quick when there is nothing to do.

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/installed.stamp
NATIVE := build/native.stamp
NATIVE_TEST := build/native-test.stamp
NATIVE_SOURCES := $(wildcard paging/native/*.c paging/native/*.h paging/native/*.S paging/native/*.ld paging/native/*.py)

.NOTPARALLEL:
.PHONY: setup setup-test packages packages-test demo test check bench model clean

setup: packages $(NATIVE)

setup-test: packages-test $(NATIVE_TEST)

packages:
	@docker/packages.sh run

packages-test:
	@docker/packages.sh test

$(INSTALLED): pyproject.toml | packages
	$$(docker/python.sh) -m venv $(VENV)
	$(PY) -m pip install -q -e '.[dev]'
	@touch $@

$(NATIVE): $(NATIVE_SOURCES) $(INSTALLED) | packages
	$(PY) -m paging.native.build
	@mkdir -p build && touch $@

$(NATIVE_TEST): $(NATIVE) | packages-test
	$(PY) -m paging.native.build --linux --qemu10
	@mkdir -p build && touch $@

demo: setup
	$(VENV)/bin/swapferry run scenarios/scenes/first_migration.toml

test: setup setup-test
	$(PY) -m pytest

check: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q tests/test_tidy.py

bench: setup-test
	$(PY) benchmarks/page_in.py
	$(PY) benchmarks/bus.py

model: $(INSTALLED)
	$(PY) docs/model/checker.py

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis
