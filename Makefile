# make mini       set up the environment and run the default study, to results/mini/report.html
# make released   the paper's laws and figures from the authors' released losses, to results/released/report.html
# make test       set up the environment, then format, lint, types and tests
# make test-slow  the heavier tests: the whole mini study, killed again and again
# make test-hf    that exported checkpoints load in transformers, in an environment of its own
# make eval       lm-eval, for the target benchmarks_evaluated, in an environment of its own; make test-eval tests it
# make lock       refresh the pinned versions in envs/requirements.txt

PYTHON ?= python3.11
CORES ?= all
BIN := .venv/bin
# A folder of wheels that pip is told about serves uv as well; without one, torch comes from its own CPU index.
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
ifeq ($(PIP_FIND_LINKS),)
export UV_TORCH_BACKEND ?= cpu
endif

.PHONY: mini released test test-slow test-hf eval test-eval lock setup format
.DEFAULT_GOAL := mini

mini released: setup
	$(BIN)/snakemake --cores $(CORES) --rerun-incomplete --configfile config/$(if $(filter mini,$@),config,$@).yaml
	$(BIN)/snakemake --configfile config/$(if $(filter mini,$@),config,$@).yaml --report results/$@/report.html

setup: .venv/ready

.venv/ready: pyproject.toml envs/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --python .venv --compile-bytecode -r envs/requirements.txt torch==2.13.0 -e .
	touch $@

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint
	$(BIN)/pytest -n 2 --dist loadgroup

test-slow: setup
	$(BIN)/pytest -m slow

test-hf: .venv-hf/ready
	.venv-hf/bin/pytest tests/unit/training/test_transformers.py

.venv-hf/ready: pyproject.toml | setup
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-hf
	$(BIN)/uv pip install --quiet --python .venv-hf torch==2.13.0 -e .[dev,hf]
	touch $@

eval: .venv-eval/ready

test-eval: eval
	.venv-eval/bin/pytest tests/unit/evaluation

.venv-eval/ready: pyproject.toml | setup
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-eval
	$(BIN)/uv pip install --quiet --python .venv-eval torch==2.13.0 -e .[dev,eval]
	touch $@

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

# torch is left out: its CPU build has no version of its own on every index.
lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --no-emit-package torch --no-header \
		--no-annotate --quiet --output-file envs/requirements.txt
