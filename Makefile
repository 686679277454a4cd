# On a fresh machine only make and Python >= 3.11 are needed: each target sets up .venv when it has to.
PYTHON ?= python3
JOBS ?= 2
SECONDS ?= 60
PARSERS ?= checkpoint document task oracle vocabulary corpus metrics config samples

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One thread a process: JOBS test processes that each start a pool of threads slow one another down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow faults fuzz lint format coverage hooks clean

help: ## show this list
	@echo "usage: make TARGET [PYTHON=python3.12] [JOBS=2]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s%s\n", $$1, $$2 }'

setup: $(READY) ## create .venv with everything that development needs
	@echo "$(VENV) is ready"

demo: $(READY) ## train a first generator on WordNet definitions and show what it writes
	$(BIN)/python agents/mle.py --task wordnet-glosses --epochs 10 --temperature 0.6

test: lint ## lint, types and the fast tests
	$(PYTEST) -m "not slow and not faults"

test-slow: $(READY) ## the tests that train agents or build the package
	$(PYTEST) -m "slow and not faults" --timeout 900

faults: $(READY) ## the fault harness in full: bad files and arguments by the thousand
	$(PYTEST) -m faults --timeout 7200

# Not among the requirements: it builds only where a wheel or a compiler is.
fuzz: $(READY) ## look for inputs that break a parser, guided by coverage (SECONDS=60 each)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt atheris
	mkdir -p fuzz && cd fuzz && for parser in $(PARSERS); do \
	  ../$(BIN)/python ../tests/faults/fuzz.py $$parser -max_total_time=$(SECONDS) -print_final_stats=1 || exit 1; done

lint: $(READY) ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## mend what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(READY) ## the fast tests, with the lines that they miss
	$(PYTEST) -m "not slow and not faults" --cov --cov-report term-missing

hooks: $(READY) ## run the checks at every git commit, the fast tests at every push
	$(BIN)/pre-commit install --hook-type pre-commit --hook-type pre-push

clean: ## remove .venv, builds and caches; run folders stay
	rm -rf $(VENV) build dist *.egg-info .coverage htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find agents benchmarks tests textgan_env -name __pycache__ -type d -prune -exec rm -rf {} +

# Made once, and again when the requirements change.
$(READY): setup.cfg pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no command '$(PYTHON)' here; install Python 3.11 or newer, or name one: make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, but $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }
	@echo "Setting up $(VENV): this downloads PyTorch and takes a minute or more, once."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
