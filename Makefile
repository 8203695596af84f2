# Everything a newcomer needs: `make demo` and `make test`. The environment in $(VENV) makes itself.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test check format lint types bench clean

demo: $(READY)
	$(RUN)/wandbsync demo

test: $(READY)
	$(RUN)/python -m pytest

check: $(READY)
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/python -m pytest

format: $(READY)
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

lint: $(READY)
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .

types: $(READY)
	$(RUN)/mypy

bench: $(READY)
	$(RUN)/python tests/bench.py

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("wandbsync needs Python 3.10 or newer") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
