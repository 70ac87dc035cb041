# Everything runs in .venv, which the first call makes. Bring your own environment instead with `pip install .`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock
RESULTS ?= results
CORES := $(shell nproc)
DEVICES ?= $(shell echo $$(($(CORES) < 4 ? $(CORES) : 4)))
OFFLINE := HF_HUB_OFFLINE=1 WANDB_MODE=offline

.DEFAULT_GOAL := help
.PHONY: help bench test test-web test-slurm lint notebooks report docs clean lock

help:  ## explain the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

bench: $(VENV)/runtime.stamp  ## compare the methods on the mini corpora: a table, and a page in results/ (one cell a core, at most 4 at a time; DEVICES=1: one)
	$(BIN)/itmbench bench mini --results $(RESULTS) --devices $(DEVICES)

test: $(VENV)/dev.stamp  ## run the tests
	$(OFFLINE) $(BIN)/python -m pytest

test-web: $(VENV)/dev.stamp  ## run the tests of the page in a browser (Debian: apt-get install chromium)
	$(PIP) --editable '.[web]'
	$(OFFLINE) $(BIN)/python -m pytest -n 0 -m web -rs tests/report

test-slurm: $(VENV)/dev.stamp  ## run the tests with a real Slurm (installed on Debian, for root)
	@[ -x /usr/sbin/slurmctld ] || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { apt-get -qq update && \
		apt-get -qq install --yes --no-install-recommends slurm-wlm munge; }
	$(OFFLINE) $(BIN)/python -m pytest -n 0 -m slurm -rs tests/runner

lint: $(VENV)/dev.stamp  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(VENV)/notebooks.stamp  ## open the notebooks in JupyterLab, on the results of `make bench`
	ITMBENCH_RESULTS=$(abspath $(RESULTS)) $(BIN)/jupyter lab notebooks

report: $(VENV)/runtime.stamp  ## print the tables of all results and write them as a page
	$(BIN)/itmbench report --results $(RESULTS)
	$(BIN)/itmbench report --results $(RESULTS) --format html --out $(RESULTS)/report.html

docs: $(VENV)/dev.stamp  ## build the documentation site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove the environment and everything that the tools leave, but not the results
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache lightning_logs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "itmbench needs Python 3.11 or newer: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime.stamp: pyproject.toml requirements.lock | $(VENV)/bin/python
	@echo "installing itmbench into $(VENV) (a few minutes, once)"
	$(PIP) --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/runtime.stamp
	@echo "installing the development tools into $(VENV)"
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/notebooks.stamp: $(VENV)/runtime.stamp
	@echo "installing JupyterLab into $(VENV)"
	$(PIP) --editable '.[notebooks]'
	@touch $@

lock:  ## renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal --no-annotate --quiet --upgrade \
		--output-file requirements.lock
