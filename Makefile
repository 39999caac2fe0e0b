# Each target makes .venv by itself and uses it again. Needs Python >= 3.11 (PYTHON=...), a C++20 compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: lab test core bench soak ctest sanitize lint clean
.DEFAULT_GOAL := test

lab: $(VENV)/.lab
	$(BIN)/poolwise lab --report report.html

# Tests run in this many processes, of up to 2 GB each; who has run out of tests takes half of what another has left.
WORKERS ?= 2
TESTS := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test: $(VENV)/.dev
	$(TESTS)

core: $(VENV)/.dev  ## without slow tests, and with five cases of each
	$(TESTS) -m "not slow"

bench: $(VENV)/.dev
	$(BIN)/poolwise bench

soak: $(VENV)/.dev  ## random calls of the C++ kernel against the reference
	$(BIN)/python tests/soak.py --cases 100000 --jobs 2 --output benchmarks/soak.md

CONFIGURE := cmake -G Ninja -S . -DPOOLWISE_OPTIMIZE=-O1

ctest sanitize: export PATH := $(abspath $(BIN)):$(PATH)
ctest: $(VENV)/.dev  ## the C++ tests, by CTest
	$(CONFIGURE) -B build/cpp -DPOOLWISE_TESTS=ON
	cmake --build build/cpp
	ctest --test-dir build/cpp --output-on-failure

# One instruction set under the slow sanitizers: the source is the same for all, and each takes minutes to build.
sanitize: $(VENV)/.dev  ## the same and the Python tests under the sanitizers
	$(CONFIGURE) -B build/thread -DPOOLWISE_TESTS=ON -DPOOLWISE_SANITIZE=thread
	cmake --build build/thread --target race
	build/thread/race
	$(CONFIGURE) -B build/address -DPOOLWISE_TESTS=ON -DPOOLWISE_ONE_SET=ON -DPOOLWISE_SANITIZE=address,undefined
	cmake --build build/address
	ctest --test-dir build/address --output-on-failure
	sh tests/sanitized.sh

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests examples
	$(BIN)/ruff format --check src tests examples
	$(BIN)/pyright
	@if command -v npm >/dev/null; then npx --yes --package typescript@5.9 tsc --project src/poolwise/explorer/static; \
	  else echo "npm is not installed: the types of the explorer's module were not checked"; fi

clean:
	rm -rf $(VENV) build

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "poolwise needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.lab: $(VENV)/.made $(SOURCES)
	@echo "Installing poolwise with the lab (PyTorch, matplotlib) into $(VENV), its kernels for this machine ..."
	POOLWISE_SETS=native PIP_CONSTRAINT=constraints.txt $(INSTALL) ".[lab]"
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(SOURCES)
	@echo "Installing poolwise with everything its tests need into $(VENV) ..."
	PIP_CONSTRAINT=constraints.txt $(INSTALL) ".[dev]"
	@touch $@ $(VENV)/.lab
