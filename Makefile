# Two commands: `make demo` explains a photograph, `make test` runs everything. Both make .venv first if it is missing;
# `make demo` installs what explaining needs, every other target the rest too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.demo
STAMP := $(VENV)/.installed

.PHONY: demo test system quick lint format docs coverage mutants audit clean train-scenes bench

demo: $(DEMO)
	$(BIN)/secondsight explain examples/coffee.jpg "a cup of coffee on a saucer" \
	  --select coffee --out explanation.html --out explanation.png
	@echo
	@echo "The explanation is this page; open it in a browser, click words, drag a box on the picture:"
	@echo "  $(CURDIR)/explanation.html"
	@echo "From a terminal: xdg-open explanation.html (Linux), open explanation.html (macOS)."
	@echo "Your own photograph: $(BIN)/secondsight explain PHOTO \"CAPTION\" --out page.html"

# JOBS processes of one thread each take one file of tests after another, the slowest files first; a process needs up to 5 GB.
JOBS := 2
TESTS := OMP_NUM_THREADS=1 SECONDSIGHT_REQUIRE_BROWSER=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(STAMP) system
	$(TESTS)

# A browser for the tests of pages, LaTeX for the test of its output. Debian's package manager installs them where it may.
system:
	@command -v chromium >/dev/null && command -v pdflatex >/dev/null || scripts/system_packages.sh

# The algebra, the paths and the methods: what most changes can break.
quick: $(STAMP)
	$(BIN)/python -m pytest -q tests/algebra tests/paths tests/methods

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

coverage: $(STAMP) system
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

# Hours; results go to benchmarks/results and docs/benchmarks. On a GPU minutes: make bench DEVICE=cuda
bench: $(STAMP)
	$(BIN)/python benchmarks/suite.py --device $(or $(DEVICE),cpu)

define make_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
  { echo "no virtual environment could be made; on Debian: apt-get install python3-venv"; exit 1; }
endef

# An unfinished install leaves no stamp, so the next call takes it up again. Python compiles what it imports; compiling
# all that is installed would take longer than the demo.
$(DEMO): pyproject.toml
	$(make_venv)
	@echo "installing what the demo needs; most of it is torch (several GB, some minutes)"
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -e '.[builtin]'
	@touch $@

$(STAMP): pyproject.toml
	$(make_venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(DEMO) $@

clean:
	rm -rf $(VENV) build dist site coverage .coverage .pytest_cache .mypy_cache .ruff_cache explanation.html explanation.png
