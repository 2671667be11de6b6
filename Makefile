# Everything runs in .venv, which `make setup` fills. PYTHON chooses the interpreter (3.10 or newer).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-slow lint docs dist bench clean

setup: .venv/.complete

.venv/.complete: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[cpu,fast,visualdl,tensorboard,report,onnx,dev]"
	touch $@

demo: setup
	$(BIN)/python tools/demo.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist worksteal

test: lint
	$(PYTEST)

test-slow: setup
	@for path in $(TESTS); do test -e "$${path%%::*}" || { echo "TESTS: $$path: no such file or folder"; exit 2; }; done
	$(PYTEST) -m "slow and not gpu" $(TESTS)

docs: setup
	$(BIN)/pip install --quiet --editable ".[docs]"
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "open build/docs/index.html"

dist: setup
	$(BIN)/python -m build --outdir dist .

bench: setup
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/step_overhead.py
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/loader.py

clean:
	rm -rf .venv build dist output inference *.egg-info
