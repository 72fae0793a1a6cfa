# Each target makes .venv by itself, with plain pip, once (again only when pyproject.toml changes).
#   make demo      two language models answer from the same few latent vectors
#   make test      the whole test suite
#   make results   measures again what README quotes, on the first 500 questions
#   make train-results DATA=DIR   trains what they come from: on GPUs, from the wire that comes along
#   make lint      formatting, lint and types; changes nothing
#   make format    formats, and mends what lint can mend
#   make clean     removes .venv, caches and runs/
# Another Python: make demo PYTHON=python3.12. Options for pip: make demo PIP_ARGS="--index-url ...".

PYTHON ?= python3
PIP_ARGS ?=
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test results train-results lint format clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.installed
	$(BIN)/latentwire demo $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

results: $(VENV)/.installed
	$(BIN)/python benchmarks/again.py $(ARGS)

train-results: $(VENV)/.installed
	$(BIN)/python benchmarks/train_results.py --data-dir $(DATA) $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs dist build .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "error: '$(PYTHON)' is missing or older than 3.10; name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# the stamps lie inside .venv, so removing it removes them
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[dev]'
	@touch $@ $(VENV)/.installed
