# Everything a newcomer needs: `make demo` and `make test`. The environment in $(VENV) makes itself.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin
READY = $(VENV)/.ready
OLDEST = $(VENV)/oldest

.PHONY: demo test oldest check format lint types truth bench bench-quick soak hazards fuzz chaos lake-cost engines archives release clean

demo: $(READY)
	$(RUN)/wandbsync demo

test: $(READY)
	$(RUN)/python -m pytest

# The tests on the lowest versions that pyproject.toml allows; they need Python 3.10 to 3.12.
oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest -W default

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

# How much of the line that is drawn by default lies on its data; `make truth CACHE=~/.cache/wandbsync` of a cache.
truth: $(READY)
	$(RUN)/python tests/truth.py $(CACHE)

# What it costs, as ratios to what people use today; `bench-quick` in less than three minutes. A quarter of an hour on a
# machine that does nothing else, and `make bench BENCH=--record`, make BENCHMARKS.md.
bench bench-quick: $(READY)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(RUN)/python tests/bench.py $(if $(filter bench-quick,$@),--quick) $(BENCH)

# Everything at once, and everything killed; `make soak SOAK='--seconds 600 --kills 200'` for longer.
soak: $(READY)
	$(RUN)/python tests/soak.py $(SOAK)

# What is known to go wrong, done to the SDK and to wandbsync.
hazards: $(READY)
	$(RUN)/python tests/hazards.py

# Broken bytes for everything that reads strangers' bytes; `make fuzz FUZZ='--seconds 600'` for longer.
fuzz: $(READY)
	$(RUN)/python tests/fuzz.py $(FUZZ)

# Flipped bits, kills, full disks, hostile servers and logs: tried, told, healed, wrong; `make chaos CHAOS='--seconds 600'`.
chaos: $(READY)
	$(RUN)/python tests/chaos.py $(CHAOS)

# What a lake costs, for docs/lake.md.
lake-cost: $(READY)
	$(RUN)/python tests/lake_cost.py

# Other engines read a lake; Daft and Ray are more than a gigabyte.
engines: $(READY)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check daft 'ray[data]'
	$(RUN)/python -m pytest -n 0 tests/test_lake_engines.py

# The wheel and the source archive, checked, installed as a stranger would, and tried.
archives: $(READY)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check build twine
	rm -rf dist
	$(RUN)/python -m build --outdir dist .
	$(RUN)/twine check --strict dist/*
	$(PYTHON) -m venv --clear $(VENV)/release
	$(VENV)/release/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd dist && $(abspath $(VENV))/release/bin/wandbsync --version
	cd dist && $(abspath $(VENV))/release/bin/wandbsync demo --output $(abspath $(VENV))/release/demo

# A release is a tag; pushing it has .github/workflows/release.yml publish what `make archives` builds.
release: VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' wandbsync/_version.py)
release:
	@test -z "$$(git status --porcelain)" || { echo "There are changes that are not committed."; exit 1; }
	@grep -q '^## $(VERSION) (20' CHANGELOG.md || { echo "CHANGELOG.md has no date for $(VERSION)."; exit 1; }
	@! git rev-parse --quiet --verify refs/tags/v$(VERSION) || { echo "v$(VERSION) is tagged already."; exit 1; }
	$(MAKE) check archives
	git tag --annotate v$(VERSION) --message "wandbsync $(VERSION)"
	@echo "To publish it: git push origin v$(VERSION)"

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("wandbsync needs Python 3.10 or newer") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

$(OLDEST)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(OLDEST)
	sed -n 's/.*"\([a-z][a-z-]*\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml > $(OLDEST)/lowest.txt
	PIP_CONSTRAINT=$(abspath $(OLDEST)/lowest.txt) PIP_BUILD_CONSTRAINT=$(abspath $(OLDEST)/lowest.txt) \
		$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
