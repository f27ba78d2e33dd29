# make demo, make test: all that a newcomer needs. Both create the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test test-slow bench lint train clean help

help:
	@echo "make demo   predict on a real photo and a synthetic one; results in output/demo/"
	@echo "make test   the test suite; make test-slow: the tests that need a browser, node or minutes"
	@echo "make bench  timed claims, side by side with the published way"
	@echo "make lint   ruff and mypy"

# A stamp for each set of extras: an interrupted installation is repeated, a complete one is not.
$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(PIP) --editable '.[train,slurm,test,lint]'
	@touch $@

demo: $(BIN)/.installed
	$(BIN)/wholebody predict demo/astronaut.jpg demo/synthetic.jpg --out output/demo

test: $(BIN)/.installed-dev
	$(BIN)/python -m pytest

test-slow: $(BIN)/.installed-dev
	$(BIN)/python -m pytest -m slow

bench: $(BIN)/.installed-dev
	$(BIN)/python -m tools.bench

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) output build dist
