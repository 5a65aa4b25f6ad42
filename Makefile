# `make` alone lists what there is. Nothing but Python 3.11 or newer, make and a package index is needed.

.DEFAULT_GOAL := help
VENV := .venv
DATA ?=
VARIANT ?=

# The first Python that is new enough and can make environments. A name on the path may be a stub that doesn't run.
CANDIDATES := python3.13 python3.12 python3.11 python3
ifndef PYTHON
PYTHON := $(shell for p in $(CANDIDATES); do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { command -v $$p; break; }; done)
endif

# $(call ready,STAMP): brings an environment up to date. One make at a time does: whoever comes second waits for the
# lock, and then finds nothing left to do. The lock goes with the process that holds it.
LOCKED := import fcntl, subprocess, sys; f = open(sys.argv[1], "w"); \
	fcntl.flock(f, fcntl.LOCK_EX); sys.exit(subprocess.call(sys.argv[2:]))
ready = $(need_python) && "$(PYTHON)" -c '$(LOCKED)' $(VENV).lock \
	env -u MAKEFLAGS $(MAKE) --no-print-directory VENV="$(VENV)" PYTHON="$(PYTHON)" "$(VENV)/$(1)"
need_python = { [ -n "$(PYTHON)" ] || { echo "medlens needs Python 3.11 or newer with the venv module; \
	none of $(CANDIDATES) is (Debian: apt-get install python3-venv). Another can be named: make PYTHON=/path/to/python" >&2; exit 1; }; }

.PHONY: help demo docs test check trials test-gpu model clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## make the environment, index real DICOM files, search them, write a page of what was found
	@$(call ready,installed-demo)
	@$(VENV)/bin/medlens demo

test: ## make the environment with what tests need; all tests
	@$(call ready,installed-test)
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 $(PYTEST_ARGS)

check: ## lint, format and types, by checkers of bounded versions
	@$(call ready,installed-check)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: ## build the documentation as a site, in docs/_build; a warning is an error
	@$(call ready,installed-docs)
	$(VENV)/bin/python -m sphinx -b html -W --keep-going -q docs docs/_build
	@echo "docs/_build/index.html"

trials: ## the long trials whole, of which make test runs a share: make trials TRIALS='mutants --share 0.1 --seed 7'
	@$(call ready,installed-test)
	PYTHONPATH=.:tests $(VENV)/bin/python -m trials $(TRIALS)

test-gpu: ## the tests that need a GPU which FAISS can use; elsewhere they are skipped
	@$(call ready,installed-test)
	$(VENV)/bin/python -m pytest -m gpu $(PYTEST_ARGS)

MODEL_CONFIG = data/training/medlens-base$(if $(VARIANT),-$(VARIANT)).yaml
model: ## train the default model anew, or another: make model DATA=FOLDER [VARIANT=2] (data/training/medlens-base-VARIANT.yaml)
	@[ -n "$(DATA)" ] || { echo "name the folder that holds the training data: make model DATA=FOLDER" >&2; exit 2; }
	@[ -f "$(MODEL_CONFIG)" ] || { echo "there is no $(MODEL_CONFIG); VARIANT is one of: $(patsubst data/training/medlens-base-%.yaml,%,$(wildcard data/training/medlens-base-*.yaml))" >&2; exit 2; }
	@$(call ready,installed-train)
	$(VENV)/bin/medlens train $(MODEL_CONFIG) --data "$(DATA)"

clean: ## remove the environment, the demo's folder and all that was built
	rm -rf $(VENV) $(VENV).lock .venv-second .venv-second.lock .demo docs/_build build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find benchmarks cli data indexer retrieval tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The checkout itself is installed (--editable): what is run and tested is always what is here, and only a change of
# pyproject.toml asks for another installation. That the built wheel works is tests/test_packaging.py's business.
# Reached only through `ready`, under the lock.
$(VENV)/installed: pyproject.toml
	@[ -x $(VENV)/bin/python ] && $(VENV)/bin/python -c '' || { echo "making $(VENV) with $(PYTHON)" >&2; "$(PYTHON)" -m venv --clear $(VENV); }
	@echo "installing what medlens needs (minutes the first time)" >&2
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --editable .
	@touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --editable '.[$*]'
	@touch $@
