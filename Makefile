# make demo and make test need nothing but make and a Python >= 3.10 that can make virtual environments.
# PYTHON=/path/to/python3 chooses another one; WORKERS=n sets the number of parallel test processes.

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 4
TESTS ?= tests
# More options for make bench, such as BENCH='--only caller,redislogkit'.
BENCH ?=
# What an editable install goes by.
BUILT := pyproject.toml $(wildcard redislogkit/*/_compiled.c redislogkit/*/*.h)
# What the running Python offers of the faster tracers; plain coverage.py decides on older ones.
CORE = $$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')

.PHONY: help venv demo test coverage check docs smoke bench clean

help:
	@echo "make demo     set up and run the demo: several processes, one rotated file, a coloured terminal"
	@echo "make test     set up and run all tests"
	@echo "make coverage the same with coverage, which takes a third longer"
	@echo "make check    ruff, mypy --strict, import-linter"
	@echo "make docs     build the documentation into docs/_build/html; a warning is an error"
	@echo "make smoke    build wheel and sdist, and try them in a fresh environment of each Python there is"
	@echo "make bench    measure this package beside others and against its goals, in about 10 minutes"
	@echo "make venv     only set up .venv for development"
	@echo "make clean    remove .venv and everything built"

demo: $(VENV)/.stamp-demo
	@$(BIN)/python -m redislogkit demo

test: $(VENV)/.stamp-dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

coverage: $(VENV)/.stamp-dev
	@rm -f .coverage .coverage.*
	@COVERAGE_CORE=$(CORE) $(BIN)/python -m coverage run -m pytest -n $(WORKERS) --dist worksteal $(TESTS); status=$$?; \
	$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage report; \
	exit $$status

check: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.stamp-docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html -d docs/_build/doctrees docs docs/_build/html

smoke: $(VENV)/.stamp-dev
	@$(BIN)/python -m tests.smoke

bench: $(VENV)/.stamp-bench
	@mkdir -p bench-output
	@$(BIN)/python -m stress.bench --json bench-output/results.json --svg bench-output/rates.svg $(BENCH)
	@$(BIN)/python -m stress.bench guard

venv: $(VENV)/.stamp-dev

clean:
	rm -rf $(VENV) build dist docs/_build demo-output bench-output .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
	find redislogkit stress tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f redislogkit/*/_compiled.*.so

# Each stamp is newer than these once its extras are installed. Both installs are editable: a copy
# would go stale, and would replace the editable one that the tests need.
$(VENV)/.stamp-demo: $(BUILT) $(VENV)/.stamp-python
	@echo "installing redislogkit with its embedded server ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,zstd]'
	@touch $@

$(VENV)/.stamp-dev: $(BUILT) $(VENV)/.stamp-python
	@echo "installing redislogkit and its development tools ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,zstd,metrics,web,dev]'
	@touch $@

$(VENV)/.stamp-docs: pyproject.toml $(VENV)/.stamp-python
	@echo "installing redislogkit and what builds its documentation ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,zstd,docs]'
	@touch $@

$(VENV)/.stamp-bench: $(BUILT) $(VENV)/.stamp-python
	@echo "installing redislogkit and what it is measured beside ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,zstd,bench]'
	@touch $@

# The order-only way: .venv is made once, and made anew only when it has no working Python any more.
$(VENV)/.stamp-python:
	@PYTHON='$(PYTHON)' sh .ci/make-venv $(VENV)
	@touch $@
