# Every target sets up what it needs. Extra arguments for pip go into PIP_ARGS, for example
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# for PyTorch without CUDA.

PYTHON ?= python3
VENV ?= .venv
VENV_OLDEST ?= .venv-oldest
PIP_ARGS ?=
PYTEST_ARGS ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-engines test-oldest lint format typecheck docs build clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps say what is installed for which state of the requirements.
$(VENV)/.user: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[cli,plot]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.user

demo: $(VENV)/.user  ## train PatchTST on a bundled data set and compare it with two baselines
	$(BIN)/tsar demo

# One process per core, with one thread each, is faster than the other way around.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.dev  ## run the tests, the slow ones left out
	$(BIN)/python -m pytest -n auto -m "not slow" $(PYTEST_ARGS)

test-all: $(VENV)/.dev  ## run every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

$(VENV)/.engines: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[dev,ray,dask,spark]"
	@touch $@ $(VENV)/.dev $(VENV)/.user

# One process, since every engine takes all cores. Spark is skipped where there is no Java, which
# Debian has in default-jre-headless.
test-engines: export OMP_NUM_THREADS := 1
test-engines: $(VENV)/.engines  ## run the tests on clusters of Ray, Dask and Spark of this machine
	$(BIN)/python -m pytest -rs tests/engines $(PYTEST_ARGS)

# What depends on pandas, numpy, scipy and optuna, with the models that are trained in no time;
# numpy 1.26 needs Python 3.11 or 3.12. Left out are networks, which depend on torch alone, what
# starts a process for each test (tests/test_packaging.py), and the largest published files.
OLDEST_TESTS := tests/batch tests/cli/test_main.py tests/cli/test_reading.py tests/data \
	tests/estimator tests/evaluation tests/forecasting/probabilistic \
	tests/forecasting/test_base.py tests/plot tests/tuning \
	tests/test_checks.py tests/test_forms.py tests/test_golden.py tests/test_persistence.py

$(VENV_OLDEST)/.stamp: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(VENV_OLDEST)
	$(VENV_OLDEST)/bin/python -m pip install --no-compile $(PIP_ARGS) \
		-c constraints-oldest.txt -e ".[all]" pytest pytest-xdist hypothesis arch scoringrules
	@touch $@

test-oldest: export OMP_NUM_THREADS := 1
test-oldest: $(VENV_OLDEST)/.stamp  ## run much of the tests with the oldest versions supported
	$(VENV_OLDEST)/bin/python -m pytest -n auto -m "not slow" \
		-k "(not test_checks or Naive or NLinear) and not published_cell" \
		$(OLDEST_TESTS) $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## ruff: rules and format; import-linter: the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.dev  ## mypy on tsar/, and two checkers on what a user writes
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/user_code.py
	$(BIN)/basedpyright --level error tests/typing

docs: $(VENV)/.dev  ## build the documentation into docs/_build; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

build: $(VENV)/.dev  ## build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean:  ## remove what was built, the environment stays
	rm -rf build dist docs/_build docs/api/generated docs/gallery docs/generated .pytest_cache .mypy_cache .ruff_cache
