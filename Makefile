# Every target makes its own .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_WAIT_POLICY ?= PASSIVE
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test lint bench install format translations clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

demo: $(STAMP)
	$(BIN)/perdure demo demo-shop

test: $(STAMP)
	$(BIN)/python -m pytest --cov -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check src tests bench tools
	$(BIN)/ruff format --check src tests bench tools
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m bench.values --facts 4
	$(BIN)/python -m bench.restraint
	$(BIN)/python -m bench.published --facts 1 --prefixes 5

format: $(STAMP)
	$(BIN)/ruff check --fix src tests bench tools
	$(BIN)/ruff format src tests bench tools

# New texts of the pages join the catalogues; translate them there and make this once more.
translations: $(STAMP)
	$(BIN)/python -m tools.translations

clean:
	rm -rf $(VENV) demo-shop .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
