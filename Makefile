# Targets of this project; `make help` lists them.
#
#   PYTHON    Python (3.11 or newer) for the environment:                     make demo PYTHON=python3.12
#   PIP_ARGS  arguments for pip, such as a custom index:                      make demo PIP_ARGS="--extra-index-url ..."
#   IMAGE     your own image for the demo:                                    make demo IMAGE=me.jpg
#   K         run only tests whose name contains this:                        make test K=hg8
#   JOBS      number of test processes (default: cores, at most 8):           make test JOBS=4

PYTHON ?= python3
PIP_ARGS ?=
IMAGE ?=
K ?=
JOBS ?= auto
VENV ?= .venv
BIN := $(VENV)/bin
# A worker uses one core and about 1 GB of memory.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal $(if $(K),-k "$(K)")
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt

.DELETE_ON_ERROR:
.PHONY: help demo test style types check build format bench docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "poseglass needs Python 3.11 or newer; $(PYTHON) is older. Choose another: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) (a few hundred MB to a few GB of packages the first time, mostly torch) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/.tests: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) with the packages for the tests ..."
	$(PIP) -e '.[dev,tensorboard,onnx,openvino]'
	@touch $@ $(VENV)/.runs

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "setting up $(VENV) with the packages for the documentation ..."
	$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.runs

demo: $(VENV)/.runs ## find poses in images, then train a small network for a minute; writes demo/
	$(BIN)/poseglass demo --out demo $(if $(IMAGE),--image "$(IMAGE)")

test: $(VENV)/.tests ## run all tests that need no download; K=word selects some of them
	$(PYTEST)

style: $(VENV)/.tests ## check style and spelling
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell

types: $(VENV)/.tests ## check types with pyright
	$(BIN)/pyright

check: style types ## before every commit: style, spelling, types and the fast tests, in two minutes
	$(PYTEST) -m "not slow"

build: $(VENV)/.tests ## build sdist and wheel -> dist/, then test the wheel in a separate environment
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	POSEGLASS_DIST=dist $(BIN)/python -m pytest tests/test_wheel.py

format: $(VENV)/.tests ## format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(VENV)/.tests ## measure speed -> benchmarks/results/ (run it on an idle machine)
	for file in oks_ap decode loader train_step inference; do $(BIN)/python benchmarks/$$file.py || exit 1; done

docs: $(VENV)/.docs ## build the documentation into site/; a broken link or reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## remove generated files and the environment
	rm -rf demo site dist build $(VENV) .pytest_cache .ruff_cache .hypothesis
