# make demo, make test: all that a newcomer needs. Both create the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test test-fast test-slow fuzz soak bench lint release clean help

help:
	@echo "make demo   predict on a real photo, a synthetic one and a synthetic film; results in output/demo/"
	@echo "make test   the test suite; make test-fast: a minute of it; make test-slow: what needs a browser, node or minutes"
	@echo "make bench  timed claims, side by side with the published way"
	@echo "make fuzz   mutated files of every format against their readers, for MINUTES=20"
	@echo "make soak   kill commands at random moments, take them up again and compare, KILLS=10 times each"
	@echo "make lint   ruff and mypy"
	@echo "make release   wheel and source archive in dist/, checked; nothing is uploaded"

# A stamp for each set of extras: an interrupted installation is repeated, a complete one is not.
$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(PIP) --editable '.[train,slurm,scale,s3,test,lint]'
	@touch $@

demo: $(BIN)/.installed
	$(BIN)/wholebody predict demo/astronaut.jpg demo/synthetic.jpg demo/film.mp4 --out output/demo --overwrite
	@echo "The film in 3D: open this page in a browser, or let '$(BIN)/wholebody view output/demo' do so:"
	@$(BIN)/wholebody view --no-open output/demo/film.html
	@echo "Results are in output/demo. The command is $(BIN)/wholebody; after '. $(BIN)/activate' it is just wholebody."

test: $(BIN)/.installed-dev
	$(BIN)/python -m pytest

# What says soonest that something is broken: the plan of the house, the public interface, files, geometry, body,
# networks, people, motion, measures, losses. Nothing that draws: on a new clone the rasteriser compiles for half a minute.
FAST := tests/test_house.py tests/test_public_api.py tests/geometry tests/files/test_whole.py tests/files/test_coco.py \
	tests/files/test_reading.py tests/body/test_joints.py tests/body/test_kinematics.py tests/data/test_mixing.py \
	tests/data/test_sample.py tests/data/test_datasets_doc.py tests/model/test_osx.py tests/people/test_predict.py \
	tests/motion/test_tracks.py tests/motion/test_smooth.py tests/evaluation/test_metrics.py \
	tests/training/test_objectives.py

test-fast: $(BIN)/.installed-dev
	$(BIN)/python -m pytest $(FAST)

$(BIN)/.installed-slow: $(BIN)/.installed-dev
	$(PIP) --editable '.[anny,ray,export]'
	@touch $@

# One of these may take longer than the ten minutes after which a test of the suite counts as hung.
test-slow: $(BIN)/.installed-slow
	$(BIN)/python -m pytest -m slow -o faulthandler_timeout=3600

MINUTES ?= 20
fuzz: $(BIN)/.installed-dev
	$(BIN)/python -m tools.fuzz $(MINUTES)

KILLS ?= 10
PICTURES ?= 1000
soak: $(BIN)/.installed-dev
	$(BIN)/python -m tools.soak --kills $(KILLS) --pictures $(PICTURES)

bench: $(BIN)/.installed-dev
	$(BIN)/python -m tools.bench

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

release: $(BIN)/.installed-dev
	$(PIP) '.[release]'
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tools/check_wheel.py dist

clean:
	rm -rf $(VENV) output build dist
