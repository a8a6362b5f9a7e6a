# Needs make and a Python of at least 3.11, nothing else: every target sets up .venv first, once.
#
#   make compare ARGS="two-conv-pooled --dtype float32"     make test ARGS="tests/test_packaging.py -k wheel"

SHELL := /bin/sh
PYTHON ?= python3
JOBS ?= auto
ARGS ?=

VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python

# One thread for BLAS and torch, where numbers are judged; the benchmarks set their own.
compare test soak detection fuzz gallery: export OMP_NUM_THREADS ?= 1

# The stamp holds the folder it was made in: a moved or copied checkout, or a Python that is gone, is set up anew.
ifneq ($(shell test -x $(VENV)/bin/python && cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

.PHONY: help setup compare test check lint format types arrows bench soak detection fuzz gallery dist clean distclean

help:
	@echo 'make compare    every value and gradient of the three-layer network beside torch (ARGS="NETWORK --dtype float32")'
	@echo 'make test       the tests (ARGS="tests/test_x.py -k name")'
	@echo 'make check      ruff, mypy --strict, import-linter (make -k check: all of them, whatever fails)'
	@echo 'make fuzz       random networks, a failure shrunk to the smallest one that still shows it'
	@echo 'make soak       false alarms over random correct networks'
	@echo 'make detection  planted mistakes: flagged, blamed, named; beside other criteria'
	@echo 'make bench      speed and memory beside torch and other libraries'
	@echo 'make gallery    the example reports in reports/gallery'
	@echo 'make dist       wheel and source distribution in dist'
	@echo 'make clean      remove what the targets made; make distclean removes .venv too'

setup: $(READY)

# What is said here goes to stderr: stdout belongs to the report, as in  make compare ARGS="--format json" >report.json
$(READY): pyproject.toml constraints.txt
	@if ! { test ! -e $(READY) || test "$$(cat $(READY))" = "$(CURDIR)"; } || \
	    ! $(RUN) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	        echo 'error: $(PYTHON) is no Python of at least 3.11. Name one: make PYTHON=/path/to/python3.11'; exit 2; }; \
	    echo 'setting up $(VENV) (once; it takes some minutes)'; \
	    $(PYTHON) -m venv --clear $(VENV) || { \
	        echo 'error: $(PYTHON) cannot make a virtual environment. On Debian: apt install python3-venv'; exit 2; }; \
	fi >&2
	@$(RUN) -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]' >&2
	@$(RUN) -m compileall -q manual_bp reference >&2  # as an install does; not every environment lets Python keep it later
	@printf '%s\n' "$(CURDIR)" >$(READY)

compare: $(READY)
	@$(RUN) -m manual_bp compare $(ARGS)

test: $(READY)
	$(RUN) -m pytest -n $(JOBS) --maxprocesses 4 --dist loadfile $(ARGS)

# make -k check tells of all four, not only of the first that fails.
check: lint format types arrows

lint: $(READY)
	$(RUN) -m ruff check

format: $(READY)
	$(RUN) -m ruff format --check

types: $(READY)
	$(RUN) -m mypy

arrows: $(READY)
	$(VENV)/bin/lint-imports --no-logo

fuzz: $(READY)
	@$(RUN) -m manual_bp fuzz $(ARGS)

soak detection: $(READY)
	@$(RUN) -m tests.campaigns $@ $(ARGS)

bench: $(READY)
	@$(RUN) -m tests.benchmarks $(ARGS)

gallery: $(READY)
	@$(RUN) -m tests.gallery $(ARGS)

dist: $(READY)
	@rm -rf dist
	$(RUN) -m hatchling build -d dist

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find manual_bp reference tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
