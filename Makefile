# make demo    compare rotation heads on point clouds (CPU, minutes)
# make test    lint, types, every test
# make bench   time projection, polar factor, alignments and heads against their peers

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

demo: $(INSTALLED)
	$(BIN)/python -m experiments.rotation.pointcloud_alignment --jobs 2

test: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/pytest --numprocesses auto --dist loadfile

bench: $(INSTALLED)
	$(BIN)/python -m experiments.benchmarks.projection
	$(BIN)/python -m experiments.benchmarks.polar
	$(BIN)/python -m experiments.benchmarks.registration
	$(BIN)/python -m experiments.benchmarks.icp
	$(BIN)/python -m experiments.benchmarks.heads

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'svdrot needs Python 3.10 or newer')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	touch $@

.PHONY: demo test bench
