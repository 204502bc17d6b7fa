# Two commands matter: `make demo` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

# Every test process would compile all modules again: bytecode is kept, whatever the shell says.
test test-slow test-long: export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-slow test-long lint docs clean-demo clean help

help:
	@echo "make demo        run a whole night on MovieLens-100K and read the lists with SQL"
	@echo "make test        run the tests, in minutes"
	@echo "make test-slow   run the slower ones: servers, kills, trainings, S3"
	@echo "make test-long   run the long tests: kills, stops, two writers; an hour and more"
	@echo "make lint        ruff, mypy and the rooms' import rule"
	@echo "make audit       ask PyPI for known vulnerabilities of what constraints.txt installs"
	@echo "make docs        render docs/ to build/docs; a warning or a broken link fails"
	@echo "make bench       measure ours against a reference; [DATA=FILE] [DEVICE=cuda] [SIZES=...]"
	@echo "make bench-scale measure a night at growing numbers of users; [USERS=10000,100000]"
	@echo "make bench-ray   make a night's lists on one machine, and on 1, 2 and 4 nodes of Ray"
	@echo "make bench-year  live through 365 small nights, with weekly maintenance"
	@echo "make clean-demo  remove demo/"
	@echo "make clean       remove .venv, demo/, build/ (results of benchmarks too) and caches"

demo: $(VENV)/.installed
	@$(BIN)/recsys demo

# One torch thread a worker: two processes with two threads each on two cores take ten times longer.
# A worker more than cores: tests of servers and schedules wait for a good part of their time.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long and not slow" -n 3 --dist loadscope --no-loadscope-reorder

test-slow: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not long" -n 3 --dist loadscope --no-loadscope-reorder

test-long: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long -n 3 --dist loadscope --no-loadscope-reorder

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# --strict: a package of which nothing is known fails. It asks PyPI, so it is not part of .ci/run.
.PHONY: audit
audit: $(VENV)/.installed-audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# -W: a warning is an error; -n: so is every reference that leads nowhere.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m docs.generate
	$(BIN)/sphinx-build -W -n --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

.PHONY: bench
bench: $(VENV)/.installed-test
	@$(BIN)/python -m tests.benchmarks \
		$(if $(DATA),--data "$(DATA)") $(if $(DEVICE),--device $(DEVICE)) $(SIZES)

.PHONY: bench-scale
bench-scale: $(VENV)/.installed-test
	@$(BIN)/python -m tests.benchmarks.scale $(if $(USERS),--users $(USERS))

.PHONY: bench-ray
bench-ray: $(VENV)/.installed-test
	@$(BIN)/python -m tests.benchmarks.ray_cluster

.PHONY: bench-year
bench-year: $(VENV)/.installed-test
	@mkdir -p build
	@$(BIN)/python -m tests.benchmarks.year --results build/bench-year.json

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.installed-audit: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'
	@touch $@

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

clean-demo:
	rm -rf demo

clean: clean-demo
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
