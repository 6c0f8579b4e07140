# run | test | lab | bench | gpu | lint: each sets itself up on a machine with Python 3.11-3.13, git and make, once.
#   make run ARGS="02 --profile standard"    what stands in ARGS goes to the command behind the target
#   make run CPU=1                           torch without CUDA (Linux: 0.2 GB instead of 2.6 GB)
#   make run PYTHON=/path/to/python3.12      this interpreter, not the first one found

SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=
PYTHON ?=

# What a person keeps in the shell for other projects is not ours to import.
unexport PYTHONPATH
unexport PYTHONHOME
export PYTHONNOUSERSITE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
ifdef CPU
export PIP_EXTRA_INDEX_URL := $(PIP_EXTRA_INDEX_URL) https://download.pytorch.org/whl/cpu
endif

.DEFAULT_GOAL := help
.PHONY: help setup run test lab bench gpu lint clean

help:
	@echo "make run     run the whole course (quick profile) and write runs/<time>/summary.html"
	@echo "make test    unit, contract, layering and notebook tests, then every notebook against its stored outputs"
	@echo "make lab     open the course in JupyterLab"
	@echo "make bench   what notebooks cost beside their budgets, and speed against plain references, as ratios"
	@echo "make gpu     with an NVIDIA card, in at most 8 minutes: tests against the CPU, then speed, into runs/gpu-<time>/"
	@echo "make lint    ruff format, ruff check, mypy"
	@echo "make clean   remove .venv and the tools' caches (runs/ stays)"
	@echo 'Arguments go in ARGS, for example: make run ARGS="04 --profile standard"'
	@echo 'Notebooks run side by side, as cores and memory allow; one after another: make run ARGS="--jobs 1"'

run: $(STAMP)
	@$(VENV)/bin/drmlib run $(ARGS)

# One pytest for both, so that one summary stands at the end and one exit status speaks for all. A worker a core, one thread
# a worker; a file's tests and a notebook's cells stay together, and conftest.py starts what takes longest first.
test: $(STAMP)
	@$(PY) -m pytest tests notebooks --nbval --nbval-current-env --nbval-cell-timeout=850 \
	  -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lab: $(STAMP)
	@$(PY) -m jupyterlab notebooks $(ARGS)

bench: $(STAMP)
	@$(PY) -m benchmarks $(ARGS)

# Without a card: make gpu ARGS="--device cpu --tiny"
gpu: $(STAMP)
	@$(PY) -m benchmarks.accelerator $(ARGS)

lint: $(STAMP)
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build *.egg-info

setup: $(STAMP)

# The default python3 comes first: it is the one a person (or a CI matrix) has chosen.
PYTHONS := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python)
SUITS := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

# Made anew when a pin or a dependency changes, and when an earlier installation did not reach its end.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(PY) -c "import pip; $(SUITS)" >/dev/null 2>&1; then \
	  found=; \
	  for python in $(PYTHONS); do \
	    if "$$python" -c "$(SUITS)" >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "drmlib needs Python 3.11, 3.12 or 3.13 with its venv module (Debian, Ubuntu: the package python3-venv);" \
	      "none found as: $(PYTHONS)." \
	      "Name one: make $(or $(MAKECMDGOALS),run) PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$($$found --version). The first call installs torch and JupyterLab, which takes minutes."; \
	  "$$found" -m venv --clear $(VENV) || exit 1; \
	fi
	@$(PY) -m pip install --quiet -c constraints.txt setuptools
	@$(PY) -m pip install --quiet --no-build-isolation -c constraints.txt -e ".[test]"
	@touch $@
