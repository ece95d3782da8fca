# Two commands do everything, set-up included: `make demo` and `make test`.
# What they need they install into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000

.PHONY: help demo demo-cluster run test test-long test-all bench bench-peers docs lint clean

help:
	@echo "make demo       the main job, live: reloads under load, with a table at the end"
	@echo "make demo-cluster three hosts over one Redis, live: reloads, a killed host, Redis killed and emptied"
	@echo "make run        the example service, left running, with curl lines to try"
	@echo "make test       the tests (under 10 minutes)"
	@echo "make test-long  soaks, full fault matrices, large seed ranges"
	@echo "make test-all   the tests on every Python that is found, with the lowest and the newest Flask"
	@echo "make bench      every figure beside its target"
	@echo "make bench-peers JSON-RPC calls beside other libraries for Flask"
	@echo "make docs       the documentation, in build/docs"
	@echo "make lint       ruff and mypy --strict"

# One stamp per set of extras, made anew when the requirements change.
$(VENV)/ready-%: setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	touch $@

demo: $(VENV)/ready-demo
	$(BIN)/python -m example_app.demo

demo-cluster: $(VENV)/ready-demo
	$(BIN)/python -m example_app.demo_cluster

run: $(VENV)/ready-demo
	$(BIN)/python -m example_app.run --port $(PORT)

test: $(VENV)/ready-test
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not long and not alone"
	$(BIN)/python -m pytest -m "alone and not long"

test-long: $(VENV)/ready-test
	$(BIN)/python -m pytest -m "long or not long" --timeout 1800

# Options of tests/all_versions.py: make test-all ALL="--python 3.13 --with lowest"
test-all: $(VENV)/ready-test
	$(BIN)/python tests/all_versions.py $(ALL)

bench: $(VENV)/ready-bench
	$(BIN)/python -m bench

bench-peers: $(VENV)/ready-bench-peers
	$(BIN)/python -m bench --only peers

docs: $(VENV)/ready-docs
	$(BIN)/python -m sphinx -q -E -a -n -W --keep-going docs build/docs

lint: $(VENV)/ready-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-all build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
