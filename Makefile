.DEFAULT_GOAL := help
.PHONY: help demo cluster-demo test test-fast test-faults test-nightly test-python gpu gpu-pipeline lint docs bench lock

PYTHON ?= python3.11
BIN := .venv/bin
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
# Prefect's and Ray's usage reports stay off.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export RAY_USAGE_STATS_ENABLED := 0

# An image for a GPU has a Python of its own with torch: `make gpu` uses python3 unless PYTHON is given.
GPU_PYTHON := $(if $(filter file,$(origin PYTHON)),python3,$(PYTHON))

# Two processes; a file's tests (or a group's, tests/support/tiers.py) stay in one of them, the longest groups first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: export PREFECT_LOGGING_EXTRA_LOGGERS := pipeline # the pipeline's log lines go to the flow's log
demo: .venv/ready ## explain six photographs through Prefect, Ray, Zarr and Parquet: runs/demo
	$(BIN)/python -m flows demo
	@echo "The page: $(CURDIR)/runs/demo/report/index.html"

cluster-demo: .venv/ready ## run the demo on a cluster of processes: Postgres, Prefect, three Ray nodes, S3 (infra/README.md)
	$(BIN)/python -m infra.cluster_demo

test: .venv/ready ## run all tests but the fault matrix and the nightly ones: 50 minutes on two slow cores
	$(PYTEST) -m "not faults and not nightly" $(ARGS)

test-fast: .venv/ready ## run the tests that need no server: no Ray, Prefect, S3, browser
	$(PYTEST) -m "not server and not slow and not faults and not nightly" $(ARGS)

test-faults: .venv/ready ## run the fault matrix: injected faults, killed drivers, workers, nodes and servers, the cluster demo
	$(PYTEST) -m "faults and not nightly" $(ARGS)

test-nightly: .venv/ready ## train the benchmarks' networks, and fuzz 500 random classifiers; SEED=N repeats them
	$(PYTEST) -m nightly $(ARGS)
	@seed=$${SEED:-$$(date +%s)}; echo "seed: $$seed (make test-nightly SEED=$$seed tries the same classifiers)"; \
	  HDM_FUZZ_EXAMPLES=500 $(BIN)/python -m pytest tests/fuzz -rP -o faulthandler_timeout=0 --hypothesis-seed=$$seed $(ARGS)

test-python: .venv/ready ## install the wheel on Python 3.11, 3.12 and 3.13 and run the fast tests against it
	$(BIN)/nox -s fast $(ARGS)

gpu: SECONDS_LEFT ?= 530
gpu: OUT ?= runs/gpu
gpu: ## prove it on a GPU in 9 minutes, without .venv; PYTHON=python3 SECONDS_LEFT=530 OUT=runs/gpu GPU_WHEELS=folder (docs/gpu.md)
	$(GPU_PYTHON) -m infra.gpu --seconds $(SECONDS_LEFT) --out $(OUT) $(if $(GPU_WHEELS),--wheels $(GPU_WHEELS)) $(ARGS)

gpu-pipeline: SECONDS_LEFT ?= 290
gpu-pipeline: OUT ?= runs/gpu-pipeline
gpu-pipeline: .venv/ready ## run the demo on a GPU that two workers share, kill one and resume, in 5 minutes
	$(BIN)/python -m infra.gpu.demo_run --seconds $(SECONDS_LEFT) --out $(OUT) $(ARGS)

lint: .venv/ready ## check style, types, the direction of imports, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/audit
	$(MKDOCS) --quiet

docs: .venv/ready ## the documentation as a site: site/index.html
	$(MKDOCS)

bench: .venv/ready ## compare the mask optimiser with the bare network and with one mask after another
	$(BIN)/python -m benchmarks engine

# Without fiftyone and mlflow, whose hundred dependencies CI would install for one test each.
LOCKED := demo timm transformers medical tiff virelay analysis dev
lock: ## write requirements.lock again (needs uv)
	uv pip compile pyproject.toml requirements.in $(LOCKED:%=--extra %) --generate-hashes --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --no-annotate --no-header -q -o requirements.lock

# The lock is complete, so nothing is resolved: --no-deps. The stamp is renewed when the lock or the project's metadata changes.
.venv/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@
