# People and CI use the same words. Each target makes what it needs: Python 3.11+ and make suffice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: search ui test check bench chaos clean

search: $(VENV)/installed
	$(BIN)/python search/run.py --trials 64

ui: $(VENV)/installed
	$(BIN)/mlflow ui --host 127.0.0.1 --workers 1

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-test
	$(BIN)/python -m pytest tests/benchmarks -m benchmark -s --timeout 3600

chaos: $(VENV)/installed-test
	CHAOS_KILLS=100 CHAOS_SEED=$${CHAOS_SEED:-1} $(BIN)/python -m pytest tests/search/test_chaos.py -s

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[test]" --constraint constraints.txt
	touch $@
