# make demo     compare rotation heads on generated point clouds: three minutes of two cores
# make test     lint, types, every test
# make peers    install what tests and benchmarks compare with, open3d among it, where this system has it
# make bench    time projection, polar factor, alignments and heads against their peers, into runs/benchmarks
# make matrix   the tests of the library with the oldest and the newest versions of all it needs
#
# Each installs what it lacks into .venv; the first time that is torch, on Linux without another choice its CUDA
# build of about 3 GB.

PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

demo: $(VENV)/.experiments
	@echo "Compares five rotation heads on generated point clouds: about three minutes on two cores, in"
	@echo "runs/rotation/pointcloud_alignment. What was stopped goes on when it is started again."
	$(BIN)/python -m experiments.rotation.pointcloud_alignment --jobs 2

# Byte code is kept whatever the environment says: workers, and eighty processes that tests start, import the same.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.dev
	$(BIN)/python -m ruff check --no-cache
	$(BIN)/python -m ruff format --check --no-cache
	$(BIN)/python -m pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

bench: $(VENV)/.dev
	$(BIN)/python -m experiments.benchmarks.projection
	$(BIN)/python -m experiments.benchmarks.polar
	$(BIN)/python -m experiments.benchmarks.registration
	$(BIN)/python -m experiments.benchmarks.heads
ifeq ($(words $(wildcard data/registration $(VENV)/.peers)),2)
	$(BIN)/python -m experiments.benchmarks.icp
else
	@echo "ICP is not timed: that takes the scans, at data/registration, and \"make peers\"."
endif

peers: $(VENV)/.peers

matrix: $(VENV)/.dev
	$(BIN)/python tests/support/matrix.py

# A mark for each set of packages that is installed.
$(VENV)/.%: $(VENV)/.pip constraints.txt
	@echo "Installing torch and the rest of [$*] into $(VENV): a minute or more, as the network is."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	@$(BIN)/python -c "open('$@', 'w')"

$(VENV)/.pip: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'svdrot needs Python 3.10 or newer')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -c "open('$@', 'w')"

# The versions that CI tests, for every Python and system. The libraries of CUDA are left out, since torch names
# its own, and torch is pinned on Linux alone, since older systems of Apple have only older ones.
constraints: $(VENV)/.pip
	$(BIN)/python -m pip install --quiet uv
	perl -pi -e 's/^(torch==\S+) ;.*/$$1/' constraints.txt
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.10 --all-extras --no-annotate \
		--no-emit-package svdrot --custom-compile-command "make constraints" \
		--output-file constraints.txt pyproject.toml
	perl -ni -e "s/^(torch==\S+)$$/\$$1 ; sys_platform == 'linux'/; print unless /^(nvidia|cuda)-/" constraints.txt

.PHONY: demo test bench peers matrix constraints
