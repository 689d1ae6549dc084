"""Logging of a run to MLflow: settings, metrics, tables, page and pictures."""

from __future__ import annotations

import importlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import InputError, RunError, one_line
from pipeline.report import write_report
from pipeline.runs import RunStore
from pipeline.tables.aggregate import aggregate

T = TypeVar("T")

_BATCH = 100  # settings or numbers per request: MLflow's limit for settings
_LONGEST = 500  # characters of a setting that every version of MLflow accepts


@dataclass(frozen=True)
class LoggedRun:
    """A run of MLflow.

    Attributes:
        run_id: its id.
        experiment: name of its experiment.
        metrics: numbers that were logged.
        artifacts: files that were logged.
    """

    run_id: str
    experiment: str
    metrics: int
    artifacts: int


def log_to_mlflow(store: RunStore, tracking_uri: str | None = None, experiment: str = "hdm", limit: int = 24) -> LoggedRun:
    """Log a run of hdm as a new run of MLflow.

    Metrics are the means of the tables, as `method/metric`, and the numbers of images behind them, flat and failed ones counted, as
    `method/images`, `method/flat` and `method/failed`. Artifacts are the page with its pictures, the tables and run.json. If something
    fails, MLflow's run has the status FAILED.

    Args:
        tracking_uri: MLflow's server, database or folder. None: what MLflow itself takes, such as MLFLOW_TRACKING_URI.
        limit: maximum number of images on the page.

    Raises:
        InputError: if MLflow is not installed, or the tracking URI cannot be used.
        RunError: if the server fails.
    """
    try:
        tracking = importlib.import_module("mlflow.tracking")
        entities = importlib.import_module("mlflow.entities")
    except ModuleNotFoundError:
        raise InputError("hdm log mlflow needs MLflow: pip install 'hdm-pipeline[mlflow]'") from None
    info = store.metadata()
    try:
        client = tracking.MlflowClient(tracking_uri)
        known = client.get_experiment_by_name(experiment)
        experiment_id = client.create_experiment(experiment) if known is None else known.experiment_id
        tags = {"hdm.run": store.url, "hdm.config_hash": str(info.get("config_hash", ""))}
        run = client.create_run(experiment_id, tags=tags, run_name=info["name"])
    except Exception as error:  # of a database, a server or MLflow: all say that the URI is of no use
        raise InputError(f"MLflow: {one_line(error)}; look at --tracking-uri and --experiment") from None
    run_id = str(run.info.run_id)
    try:
        for settings in _batches(list(_settings(info["config"]))):
            client.log_batch(run_id, params=[entities.Param(key, value) for key, value in settings])
        metrics = dict(_metrics(store))
        time = int(run.info.start_time)
        for numbers in _batches(list(metrics.items())):
            client.log_batch(run_id, metrics=[entities.Metric(key, value, time, 0) for key, value in numbers])
        with tempfile.TemporaryDirectory() as folder:
            artifacts = _artifacts(store, Path(folder), limit)
            client.log_artifacts(run_id, folder)
    except Exception as error:
        client.set_terminated(run_id, "FAILED")
        raise RunError(f"MLflow: {one_line(error)}; its run {run_id} has the status FAILED") from None
    client.set_terminated(run_id, "FINISHED")
    return LoggedRun(run_id, experiment, len(metrics), artifacts)


def _batches(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of a configuration with dotted keys."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", (value if isinstance(value, str) else json.dumps(value))[:_LONGEST]


def _metrics(store: RunStore) -> Iterator[tuple[str, float]]:
    """Yield the finite means of the tables, and the counts of images behind them.

    Of several baselines, those beyond the first are named.
    """
    rows = aggregate(store).to_pylist()
    first = next((row["baseline"] for row in rows), None)
    for row in rows:
        suffix = "" if row["baseline"] == first else f"/{row['baseline']}"
        if row["mean"] is not None and math.isfinite(row["mean"]):
            yield f"{row['method']}/{row['metric']}{suffix}", row["mean"]
        if not suffix:
            yield f"{row['method']}/images", row["n"]
            yield f"{row['method']}/flat", row["n_flat"]
            yield f"{row['method']}/failed", row["n_failed"]


def _artifacts(store: RunStore, folder: Path, limit: int) -> int:
    """Copy page, pictures, tables and run.json; return the number of files."""
    write_report(store, limit)
    names = ["run.json", "tables.parquet", "report/index.html"]
    names += [f"report/images/{name}" for name in store.storage.names("report/images")]
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.storage.read(name))
    return len(names)
