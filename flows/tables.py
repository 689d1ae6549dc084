"""Flow `hdm-tables`: aggregate a run, as the last step of it or later."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import Any

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from slugify import slugify

from flows.artifacts import table_artifact
from flows.parameters import Run
from pipeline.environment import bypass_proxies_on_loopback
from pipeline.errors import InputError
from pipeline.report import write_report
from pipeline.runs import RunStore
from pipeline.tables.aggregate import read_tables


def _name() -> str:
    run = str(runtime.flow_run.parameters["run"]).rstrip("/").rpartition("/")[2]
    return f"{run} {datetime.now(UTC):%Y-%m-%d %H:%M}"


@task(name="aggregate", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[10, 60])
def aggregate(store: RunStore) -> str:
    """Write tables.parquet, the page and a table artifact; return the page's URL."""
    page: str = write_report(store)
    table_artifact(slugify(f"{store.metadata()['name']} metrics"), read_tables(store))
    return page


@flow(name="hdm-tables", flow_run_name=_name)
def hdm_tables(run: Run, storage: dict[str, Any] | None = None) -> State[Any]:
    """Aggregate a run: tables.parquet, its page, and its metrics as an artifact.

    Args:
        run: the run's folder or URL, the one that holds run.json.
        storage: fsspec options of the run's storage, such as {"endpoint_url": "..."}; never a secret.
    """
    logging.getLogger("pipeline").setLevel(logging.INFO)
    bypass_proxies_on_loopback(os.environ)  # a deployment's flow run has a process of its own
    try:
        store = RunStore.open(run, storage)
    except InputError as error:  # a mistake of the user: one line in the interface, no traceback
        return Failed(message=str(error))
    page = aggregate(store)
    return Completed(message=f"tables: {store.storage.url('tables.parquet')}; report: {page}", data=page)
