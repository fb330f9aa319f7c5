# Everything happens in .venv, which is made on first use from the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help install demo samples app screenshots browser docs test check pythons bench
help:
	@echo "make demo     show the bundled models, train three tokenizers and compare them (under four minutes on two cores, after the installation)"
	@echo "make samples  draw sixteen new pictures with the bundled prior (seconds)"
	@echo "make app      show the bundled models in a web page"
	@echo "make docs     build the pages as a site in build/docs (seconds; needs no network)"
	@echo "make test     run the tests"
	@echo "make check    run the linter, the type checker and the import-graph test"
	@echo "make pythons  install the package with Python 3.11, 3.12 and 3.13, where they are, and try it (1 GB each)"
	@echo "make bench    time and measure everything in benchmarks/ that is quick (about ten minutes, on a quiet machine)"

install: $(VENV)/installed

# What training, measuring and drawing need, without the tools of development.
$(VENV)/ready: pyproject.toml constraints.txt
	@echo "installing into $(VENV): 1.7 GB with torch for the CPU"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt torch
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable ".[train]"
	@touch $@

$(VENV)/installed: $(VENV)/ready
	@echo "installing the tools of development into $(VENV): 0.8 GB"
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(VENV)/ready
	$(VENV)/bin/hybridvq compare --config demo.yaml

samples: $(VENV)/ready
	$(VENV)/bin/hybridvq sample cifar10-prior --labels all --count 8 --guidance 5 --out samples

app: install
	$(VENV)/bin/hybridvq app

# Pictures of the page.
screenshots: install browser
	$(RUN) docs/screenshots.py

# What drives the page in its tests, which are skipped without one.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
		{ apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 \
		|| echo "no browser is installed here, and apt-get cannot install one; the tests of the page are skipped"

docs: install
	$(RUN) -m sphinx -q -W --keep-going -c docs . build/docs
	@echo build/docs/index.html

test: install
	$(RUN) -m pytest -n 2

check: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(RUN) -m pytest -q tests/test_imports.py

# The package alone, installed with each Python that it names and that is here, compresses a picture.
pythons:
	@for version in 3.11 3.12 3.13; do \
		python$$version --version || { echo "Python $$version is not installed here"; continue; }; \
		python$$version -m venv --clear build/python$$version && cd build/python$$version || exit; \
		bin/pip install --quiet --constraint ../../constraints.txt torch && bin/pip install --quiet ../.. || exit; \
		bin/hybridvq compress ../../docs/picture.jpg --model photos --out picture.hvq || exit; cd ../..; done

bench: install
	$(RUN) -m benchmarks
