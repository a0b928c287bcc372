# The only commands of this project, the same for people and CI. Each sets up what it needs (requirements/setup.sh).
.DEFAULT_GOAL := help
.PHONY: help demo test check fix bench nightly

PYTHON := .venv/bin/python

help: ## say what there is
	@echo "make demo     a hub with 200 simulated devices and its page"
	@echo "make test     all tests, with the minutes of each suite (SUITE=fast|sockets|browser|chaos: only that one)"
	@echo "make check    style, types, layers"
	@echo "make fix      put right what check can put right by itself"
	@echo "make bench    measure (ARGS=… goes to tests/bench)"
	@echo "make nightly  the long rows (ROW=… picks some by name)"

demo:
	@sh requirements/setup.sh run
	@$(PYTHON) -m hub serve --demo

test:
	@sh requirements/setup.sh test
	@$(PYTHON) -m tests $(SUITE)

check:
	@sh requirements/setup.sh dev
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) .ci/javascript.py

fix:
	@sh requirements/setup.sh dev
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

bench:
	@sh requirements/setup.sh test
	@$(PYTHON) -m tests.bench $(ARGS)

nightly:
	@sh requirements/setup.sh test
	@$(PYTHON) -m pytest -m nightly $(if $(ROW),-k "$(ROW)")
