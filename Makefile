# Two commands: `make demo` explains a photograph, `make test` runs everything. Both make .venv first if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test quick lint format docs coverage mutants audit clean train-scenes bench

demo: $(STAMP)
	$(BIN)/secondsight explain examples/coffee.jpg "a cup of coffee and a spoon on a wooden table" \
	  --select coffee --out explanation.html --out explanation.png
	@echo "open explanation.html in a browser: click words, drag a box on the picture"

# Files of tests are shared out to JOBS processes of one thread each; a process needs up to 5 GB.
JOBS := 2
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test: $(STAMP)
	$(TESTS)

# The algebra, the engine and the methods: what most changes can break.
quick: $(STAMP)
	$(BIN)/python -m pytest -q tests/algebra/test_algebra.py tests/paths/test_engine.py tests/paths/test_quadrature.py tests/algebra/test_layout.py tests/methods/test_methods.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html, or see it with its search: $(BIN)/mkdocs serve"

coverage: $(STAMP)
	$(TESTS) --cov --cov-report=term:skip-covered --cov-report=html:coverage

# An hour on two cores. Survivors are explained in tests/mutants.md.
mutants: $(STAMP)
	$(BIN)/python scripts/mutants.py

# Known vulnerabilities, licences and the list of all parts (SBOM) of what an installation brings; asks an advisory database.
audit: $(STAMP)
	$(BIN)/python scripts/supply_chain.py

# Hours on two cores, minutes on a GPU; goes on where it was stopped. Add INSTALL=--install to put it into the package.
train-scenes: $(STAMP)
	$(BIN)/python scripts/train_scenes.py --out runs/scenes $(INSTALL)

# Hours; results go to benchmarks/results and docs/benchmarks.
bench: $(STAMP)
	$(BIN)/python benchmarks/suite.py

# An unfinished install leaves no stamp, so the next call takes it up again.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "no virtual environment could be made; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site coverage .coverage .pytest_cache .mypy_cache .ruff_cache explanation.html explanation.png
