# Two commands do everything: `make demo` and `make test`. Both first make the environment they need, once.
#
#   STACK=onedl|openmmlab   which OpenMMLab packages (default: onedl)
#   TORCH=2.12.0            another torch, in environments of its own
#   ENV=active              the active environment and its own torch, instead of .venv
#   PYTHON=python3.11       the interpreter to make the environment with (3.10 to 3.12)
#   TESTS=tests/losses      what to test; PYTEST_ARGS="-k kd -x" goes to pytest
#   BENCHMARKS="--only step" for `make benchmark`: which parts; --budget, --out, --list
#   WORKERS=4               how many processes test (default: 2; 0 for this one, as debuggers want)

STACK ?= onedl
TORCH ?=
ENV ?= .venv$(if $(filter openmmlab,$(STACK)),-openmmlab)$(if $(TORCH),-$(TORCH))
TESTS ?= tests
PYTEST_ARGS ?=
WORKERS ?= 2
BENCHMARKS ?=

# The first that runs and is of a version that the packages support: a pyenv shim may be there and fail.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10; do \
	$$p -c 'import venv' 2>/dev/null && echo $$p && exit; done; echo python3)

ifeq ($(ENV),active)
BOOT := python
PY := python
else
BOOT = $(PYTHON)
PY := $(ENV)/bin/python
endif

.DEFAULT_GOAL := env
.PHONY: env demo test check lint docs benchmark clean-env help

env:  ## make or finish the environment; does nothing if it is complete
	@$(BOOT) tools/setup_env.py --stack $(STACK) --env $(ENV) $(if $(TORCH),--torch $(TORCH))

demo: env  ## train a small student on real digits, distil it, and compare
	$(PY) tools/demo.py

test: env  ## run the tests
	$(PY) -m pytest -n $(WORKERS) $(TESTS) $(PYTEST_ARGS)

check: lint  ## what CI runs: lint, and the tests with the doctests
	$(PY) -m pytest -n $(WORKERS) --doctest-modules mmkd_plugin $(TESTS) $(PYTEST_ARGS)

lint: env  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs:  ## build/docs/index.html: the documentation, its notebook executed
	@$(BOOT) tools/setup_env.py --docs --stack $(STACK) --env $(ENV) $(if $(TORCH),--torch $(TORCH))
	$(PY) -m sphinx --fail-on-warning --keep-going -q -b html docs build/docs
	@echo open build/docs/index.html

benchmark: env  ## every benchmark, with a GPU its tests too, into work_dirs/benchmark.md; 8 to 10 minutes
	$(PY) tools/benchmark.py $(BENCHMARKS)

clean-env:  ## remove the environments (kept: the compiled mmcv wheels in the user's cache)
	rm -rf .venv .venv-* .setup_env

help:  ## say what there is
	@sed -n '/^$$/q;s/^# \{0,1\}//p' Makefile && echo
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile
