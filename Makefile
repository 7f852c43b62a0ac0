# The verbs of this project; `make help` lists them.
#
#   PYTHON    the Python (3.11 or newer) that makes the environment:          make demo PYTHON=python3.12
#   PIP_ARGS  passed on to pip when the environment is made, for an index of your own: make demo PIP_ARGS="--extra-index-url ..."
#   IMAGE     your own image for the demo:                                  make demo IMAGE=me.jpg
#   K         only tests whose name contains this:                            make test K=hg8
#   JOBS      processes that run tests, at most 8 unless you say so:          make test JOBS=4

PYTHON ?= python3
PIP_ARGS ?=
IMAGE ?=
K ?=
JOBS ?= auto
VENV ?= .venv
BIN := $(VENV)/bin
# A worker keeps to one core and takes about 1 GB.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal $(if $(K),-k "$(K)")
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt

.DELETE_ON_ERROR:
.PHONY: help demo test style types check build format bench docs clean

help: ## list the verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "poseglass needs Python 3.11 or newer; $(PYTHON) is older. Name another: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) (a few hundred MB to a few GB of packages the first time, mostly torch) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/.tests: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) with what the tests need ..."
	$(PIP) -e '.[dev,tensorboard]'
	@touch $@ $(VENV)/.runs

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) with what the documentation needs ..."
	$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.runs

demo: $(VENV)/.runs ## find poses in photographs, then train a small network for a minute; writes demo/
	$(BIN)/poseglass demo --out demo $(if $(IMAGE),--image "$(IMAGE)")

test: $(VENV)/.tests ## everything that needs no download; K=word selects
	$(PYTEST)

style: $(VENV)/.tests ## style and spelling
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell

types: $(VENV)/.tests ## types, by pyright
	$(BIN)/pyright

check: style types ## style, spelling, types and the fast tests, in two minutes: before every commit
	$(PYTEST) -m "not slow"

build: $(VENV)/.tests ## sdist and wheel -> dist/, then the wheel tried in an environment of its own
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	POSEGLASS_DIST=dist $(BIN)/python -m pytest tests/test_wheel.py

format: $(VENV)/.tests ## format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(VENV)/.tests ## speed on this machine -> benchmarks/results/ (wants the machine for itself)
	for file in oks_ap decode loader train_step inference; do $(BIN)/python benchmarks/$$file.py || exit 1; done

docs: $(VENV)/.docs ## build the documentation into site/; a broken link or reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## remove what the verbs made, the environment too
	rm -rf demo site dist build $(VENV) .pytest_cache .ruff_cache .hypothesis
