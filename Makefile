# Every verb makes the environment that it needs: `make` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Worker processes of pytest: tests wait most of the time.
SIDE_BY_SIDE ?= -n 4
# Otherwise each of the hundreds of processes that a test run starts would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE
NOW := $(shell date +%Y%m%d-%H%M%S)
BUILD := build/bench
BUILT_FROM := pyproject.toml setup.py $(wildcard csrc/*.[ch]) $(wildcard fastps/_core/*.p*)

.PHONY: help demo recommend test test-fast test-all bench bench-dense bench-rules bench-consistency bench-tables bench-recommend readme lint types ctest pytest build wheel clean

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/has-demo  ## train on the handwritten digits, then the same on a plain Ray actor, and compare
	$(BIN)/python -m fastps demo

recommend: $(VENV)/has-recommend  ## train a recommender of movies in sparse tables, and let it recommend
	$(BIN)/python -m fastps recommend

test: $(VENV)/ready  ## everything that must hold, side by side: linters, types, C tests, Python tests
	$(MAKE) $(if $(filter -j%,$(MAKEFLAGS)),,-j 2) pytest ctest lint types

test-fast: $(VENV)/ready  ## the unit tests of Python alone
	$(BIN)/pytest $(SIDE_BY_SIDE) tests/unit

test-all: export FASTPS_TEST_LONG := 1
test-all: test  ## the same with all of the long tests: every combination, all kills, rounds and histories

bench: $(VENV)/has-bench  ## a quick sweep beside what one would use instead, and a report to look at
	mkdir -p $(BUILD)
	$(BIN)/python -m bench sweep --quick --output $(BUILD)/$(NOW).parquet
	rm -f $(BUILD)/report.html
	$(BIN)/python -m bench report $(BUILD)/$(NOW).parquet --output $(BUILD)/report.html

bench-dense: $(VENV)/has-bench  ## the dense operations beside memcpy, numpy in place and a plain Ray actor
	$(call question,dense)

bench-rules: $(VENV)/has-bench  ## every update rule beside its bytes at the speed of SGD; and torch, where installed
	$(call question,rules)

bench-consistency: $(VENV)/has-bench  ## rounds beside an actor used synchronously, stragglers, bounds over 100,000 pulls each
	$(call question,consistency)

bench-tables: $(VENV)/has-bench  ## rows of tables beside numpy and torch with the numbers of the rows known; memory, row creation, growth
	$(call question,tables)

bench-recommend: $(VENV)/has-bench $(VENV)/has-recommend  ## the recommender beside the SVD of scikit-surprise, where that is installed
	$(call question,recommend)

# A question overwrites no file, so its result takes the old one's place when it is complete, also when a bar is missed.
RESULTS := bench/results
define question
	mkdir -p $(BUILD)
	rm -f $(BUILD)/$(1).json
	$(BIN)/python -m bench $(1) --json $(BUILD)/$(1).json; code=$$?; \
		if test -e $(BUILD)/$(1).json; then mv $(BUILD)/$(1).json $(RESULTS)/$(1).json; fi; exit $$code
endef

readme: $(VENV)/has-bench  ## write the README's chart and figures from bench/results
	$(BIN)/python -m bench readme

lint: $(VENV)/ready  ## ruff and clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror csrc/*.[ch] csrc/test/*.[ch]

types: $(VENV)/ready  ## mypy, strict
	$(BIN)/mypy

ctest:  ## the C core alone: unit, stress (ThreadSanitizer) and kill tests
	$(MAKE) -C csrc -j 2 build
	$(MAKE) -C csrc -j 1 test

pytest: $(VENV)/ready  ## the Python tests
	$(BIN)/pytest $(SIDE_BY_SIDE)

build: $(VENV)/ready  ## compile the core again after a change in csrc/ or fastps/_core/
	$(BIN)/python setup.py -q build_ext --inplace

wheel: $(VENV)/ready  ## build a wheel into dist/
	$(BIN)/pip wheel -q --no-deps -w dist .

# Of each Python its own: make wheel-test PYTHON=python3.13
WHEEL_TEST := build/wheel-test-$(notdir $(PYTHON))
.PHONY: wheel-test
wheel-test: export PYTHONPATH :=
wheel-test:  ## build the sdist, from it alone a wheel, and run the unit tests on that in an environment of its own
	rm -rf $(WHEEL_TEST)
	$(PYTHON) -m venv $(WHEEL_TEST)/venv
	$(WHEEL_TEST)/venv/bin/pip install -q build
	$(WHEEL_TEST)/venv/bin/python -m build --outdir $(WHEEL_TEST)/dist .
	$(WHEEL_TEST)/venv/bin/pip install -q "$$(echo $(WHEEL_TEST)/dist/*.whl)[test]"
	$(WHEEL_TEST)/venv/bin/python tests/installed.py

clean:  ## remove what was built, and the environment
	rm -rf build dist $(VENV) *.egg-info fastps/_core/*.so

# fastps in the environment, with an extra of pyproject.toml and no more than that.
define install
	@test -x $(BIN)/python || { echo "Making a virtual environment in $(VENV) ..."; $(PYTHON) -m venv $(VENV); } \
		|| { echo "install python3-venv"; exit 1; }
	@echo "Installing fastps and the packages for $(1) into $(VENV): pip downloads what is missing (Ray is the largest)"
	@echo "and compiles the C core. This takes some minutes, and happens once."
	$(BIN)/pip install --disable-pip-version-check --no-compile --editable '.[$(1)]'  # imports compile what they use
	@touch $@
endef

$(VENV)/has-%: $(BUILT_FROM)
	$(call install,$*)

$(VENV)/ready: $(BUILT_FROM)
	$(call install,test)
	@touch $(VENV)/has-demo $(VENV)/has-recommend $(VENV)/has-bench  # of which it has all
