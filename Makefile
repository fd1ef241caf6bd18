# Everything here works on a bare machine with Python 3.11 or newer and Node: what is missing is installed first,
# into .venv/ and web/node_modules/. Each target says what it does in the comment behind it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NPM := web/node_modules

SITE := build/site
SITE_SOURCES := $(shell find durably_web demo web scripts -type f -not -path '*/node_modules/*' -not -path '*/__pycache__/*')

# Examples with job files. Each has a jobs.py, so they are checked one by one.
EXAMPLES := $(dir $(wildcard examples/*/jobs.py examples/*/site/jobs.py))

JS_TESTS := $(shell find tests/js -name '*.test.*js' 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- What the rest needs -------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.installed $(NPM)/.installed ## Install the pinned tools and the package itself

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements-dev.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -qq --disable-pip-version-check --requirement requirements-dev.txt
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(NPM)/.installed: web/package.json web/package-lock.json
	@command -v node >/dev/null || { echo "Node 20 or newer is needed"; exit 1; }
	cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: lock
lock: $(VENV)/.installed
	$(BIN)/python -m scripts.lock

.PHONY: chromium
chromium: $(VENV)/.installed
	@$(BIN)/python -m scripts.chromium

.PHONY: databases
databases: $(VENV)/.installed
	@$(BIN)/python -m scripts.databases

# --- The site ------------------------------------------------------------------------------------------------------

.PHONY: site
site: $(SITE)/durably-web/manifest.json ## Build the static site into build/site/

$(SITE)/durably-web/manifest.json: $(SITE_SOURCES) pyproject.toml requirements-browser.txt | setup
	$(BIN)/python -m scripts.build_site

.PHONY: runtime
runtime: setup ## Build what `durably-web build` and `dev` put into a site, into build/runtime/
	@$(BIN)/python -m scripts.build_runtime

.PHONY: wheel
wheel: setup ## Build the wheel that everyone installs, the browser's runtime in it, into dist/
	@$(BIN)/python -m scripts.build_wheel

.PHONY: npm
npm: setup ## Pack the client for bundlers into build/npm/
	@$(BIN)/python -m scripts.npm_package

.PHONY: pyodide-dist
pyodide-dist: site ## Build what pytest-pyodide serves to tests into build/pyodide-dist/
	@$(BIN)/python -m scripts.pyodide_dist

.PHONY: demo
demo: site ## Serve the demo (PORT=8000 BASE=/my-repo/ to choose); ARGS=--check kills it midway and checks the report
	@$(BIN)/python -m scripts.demo $(if $(PORT),--port $(PORT)) $(if $(BASE),--base $(BASE)) $(ARGS)

# --- Is it right? --------------------------------------------------------------------------------------------------

.PHONY: lint
lint: $(VENV)/.installed ## Style, format and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

.PHONY: types
types: setup ## Types of the Python and the JavaScript, and of what the latter declares
	$(BIN)/mypy
	@for folder in $(EXAMPLES); do (cd $$folder && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache/$$folder *.py) || exit 1; done
	$(NPM)/.bin/tsc --project web/jsconfig.json
	$(NPM)/.bin/tsc --project web/jsconfig.worker.json
	$(NPM)/.bin/tsc --project web/jsconfig.types.json
	$(NPM)/.bin/tsc --project tests/types/tsconfig.json

.PHONY: js
js: $(NPM)/.installed
	$(if $(JS_TESTS),node --test --test-reporter=spec $(JS_TESTS),@echo "no JavaScript tests")

.PHONY: test
test: setup chromium databases lint types js pyodide-dist ## Everything: style, types, JavaScript, Python, browser (ARGS for pytest)
	$(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

.PHONY: simulate
simulate: $(VENV)/.installed ## Simulate engines in trouble: SEEDS=1000 many (FIRST=0), or SEED=123 one with its trace
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0))

.PHONY: torture
torture: $(VENV)/.installed ## Kill processes on one database: BACKEND=postgres ARGS="--runs 50000 --seed 2"
	@$(BIN)/python -m tests.torture $(if $(BACKEND),--backend $(BACKEND)) $(ARGS)

# --- How fast? -----------------------------------------------------------------------------------------------------

.PHONY: bench
bench: $(if $(BACKEND),setup databases,site chromium) ## Measure beside the raw limits; BACKEND=postgres or libsql on a server; ARGS=--json to keep
	@$(BIN)/python -m $(if $(BACKEND),benchmarks.servers $(BACKEND),benchmarks) $(ARGS)

.PHONY: clean
clean: ## Remove what was built and installed here
	rm -rf build dist $(VENV) $(NPM) tests/support/sqld/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
