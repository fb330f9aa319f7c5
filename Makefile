# Everything happens in .venv, which is made on first use from the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help install demo test check bench
help:
	@echo "make demo     compare VQ-VAE and its extension on sample photographs (about five minutes on two cores)"
	@echo "make test     run the tests"
	@echo "make check    run the linter, the type checker and the import-graph test"
	@echo "make bench    time and measure everything in benchmarks/ that is quick (about ten minutes, on a quiet machine)"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt torch
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: install
	$(VENV)/bin/hybridvq compare --config demo.yaml

test: install
	$(RUN) -m pytest -n 2

check: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(RUN) -m pytest -q tests/test_imports.py

bench: install
	$(RUN) -m benchmarks
