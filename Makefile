# A thin skin over the command `lecture`: each target sets up what is missing, then calls it.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BOOK_READY := $(VENV)/.book-ready
LECTURE := $(VENV)/bin/lecture
# The stamp holds the folder's path: an environment that was moved, or has lost its Python, the course or a package, is
# made again. A package that is installed has its first module.
WHOLE := import sys; from importlib.metadata import distributions; sys.exit(not all(first.locate().exists() for package \
	in distributions() for first in [file for file in package.files or () if file.suffix == ".py"][:1]))
WORKS := [ "$$(cat $(READY))" = "$$(pwd -P)" ] && [ -x $(LECTURE) ] && $(VENV)/bin/python -c '$(WHOLE)'
CLEAR := $(shell if [ -e $(READY) ]; then { $(WORKS); } 2>/dev/null || echo --clear; fi)
# The stamp is written last, so an interrupted installation is done again.
INSTALL = $(PYTHON) -m venv $(CLEAR) $(VENV) && $(VENV)/bin/python -m pip install --quiet \
	--disable-pip-version-check --editable '.[lab,test]' && pwd -P > $(READY)
# Of two makes that set up at once, one waits for the other, and finds all done.
DONE = { [ $(READY) -nt pyproject.toml ] && $(WORKS); } 2>/dev/null
ALONE = import fcntl, subprocess, sys; held = open("pyproject.toml"); fcntl.flock(held, fcntl.LOCK_EX); \
	sys.exit(subprocess.call(["sh", "-c", sys.argv[1]]))

.DEFAULT_GOAL := help
.PHONY: help setup run test test-portable test-parameters bench book lab progress promote check refresh corpus clean

help:  ## say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: corpus  ## virtual environment, dependencies, corpus (the other targets do it when needed)

run: $(READY)  ## execute all notebooks, two at a time; NB=03 one, PRESET=smoke, ARGS="-p max_iters=500"
	$(LECTURE) run $(NB) $(if $(PRESET),--preset $(PRESET)) $(ARGS)

test: $(READY)  ## all tests: style, promotion, pytest, nbval over every notebook; ARGS="--shard 1/2" half of them
	$(LECTURE) test $(ARGS)

test-portable: $(READY)  ## nbval with one thread, with two, and without vector instructions
	$(LECTURE) test --portable

test-parameters: $(READY)  ## chapters with each parameter at its least, a large and an odd value, and pairs of them
	$(LECTURE) test --parameters

bench: $(READY)  ## time the models side by side (minutes, with nothing else at work); renews docs/records.md
	$(LECTURE) bench

book: $(BOOK_READY)  ## make the course a book in the browser: out/book/index.html
	$(LECTURE) book

lab: $(READY)  ## open JupyterLab in my_notebooks/, your own copies of the chapters
	$(LECTURE) lab

progress: $(READY)  ## which exercises you have solved
	$(LECTURE) progress

promote: $(READY)  ## write lecture_lib/ from the exported cells of the notebooks
	$(LECTURE) promote

check: $(READY)  ## style, promotion and stored notebooks, without executing any
	$(LECTURE) check

refresh: $(READY)  ## execute notebooks and store their outputs; NB=03 one
	$(LECTURE) refresh $(NB)

corpus: $(READY)  ## build and verify tiny Shakespeare
	$(LECTURE) corpus

clean:  ## remove the environment, the outputs and what was built; records, your notebooks and progress stay
	[ ! -e out ] || find out -mindepth 1 -maxdepth 1 ! -name 'progress*' -exec rm -rf {} +
	rm -rf $(VENV) data/tinyshakespeare.txt data/*.whl *.egg-info .pytest_cache .ruff_cache .hypothesis

ifneq ($(CLEAR),)
.PHONY: $(READY)
endif
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "$(PYTHON) is missing or no Python 3.11 to 3.13, which is needed (make PYTHON=python3.12 ...)"; exit 1; }
	@echo 'setting up $(VENV), which takes some minutes'
	@$(PYTHON) -c '$(ALONE)' '$(subst ','\'',$(DONE) || { $(INSTALL); })'

$(BOOK_READY): $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[book]'
	@touch $@
