.DEFAULT_GOAL := help
.PHONY: help demo cluster-demo test lint docs bench lock

PYTHON ?= python3.11
BIN := .venv/bin
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
# Prefect's and Ray's reports to their makers stay off.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export RAY_USAGE_STATS_ENABLED := 0

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: export PREFECT_LOGGING_EXTRA_LOGGERS := pipeline # what pipeline logs is the flow's log
demo: .venv/ready ## explain six photographs through Prefect, Ray, Zarr and Parquet: runs/demo
	$(BIN)/python -m flows demo
	@echo "The page: $(CURDIR)/runs/demo/report/index.html"

cluster-demo: .venv/ready ## the same on a cluster of processes: Postgres, Prefect, three Ray nodes, S3 (infra/README.md)
	$(BIN)/python -m infra.cluster_demo

test: .venv/ready ## all tests, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/ready ## style, types, the direction of imports, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/audit
	$(MKDOCS) --quiet

docs: .venv/ready ## the documentation as a site: site/index.html
	$(MKDOCS)

bench: .venv/ready ## the mask optimiser against the bare network and against one mask after another
	$(BIN)/python -m benchmarks engine

lock: ## make requirements.lock anew (needs uv)
	uv pip compile pyproject.toml requirements.in --all-extras --generate-hashes --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --no-annotate --no-header -q -o requirements.lock

# The lock is complete, so nothing is resolved: --no-deps. The stamp is renewed when the lock or the project's metadata changes.
.venv/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@
