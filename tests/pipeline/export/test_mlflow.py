"""Logging to MLflow: what is logged, and what happens without it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RunError
from pipeline.export import mlflow as logger
from pipeline.export.mlflow import log_to_mlflow
from tests.support.plans import refused
from tests.support.report_runs import stored_run, unreadable


def test_without_mlflow_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    message = refused(lambda: log_to_mlflow(stored_run(tmp_path)))
    assert message == "hdm log mlflow needs MLflow: pip install 'hdm-pipeline[mlflow]'"


def test_settings_are_flat_and_metrics_are_the_means_of_the_tables(tmp_path: Path) -> None:
    store = stored_run(tmp_path, 3, changes={**unreadable(1), (2, "hdm"): {"status": "nan"}})
    settings = dict(logger._settings(store.metadata()["config"]))
    assert settings["dataset.kind"] == "folder"
    assert settings["compute.shard_size"] == "1"
    metrics = dict(logger._metrics(store))
    assert metrics["hdm/insertion_auc"] == 0.25
    assert metrics["grad_cam/insertion_auc"] == 0.5
    assert (metrics["hdm/images"], metrics["hdm/failed"], metrics["grad_cam/images"], metrics["grad_cam/failed"]) == (1, 2, 2, 1)


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_logged_to_a_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking: Any = pytest.importorskip("mlflow.tracking")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store, uri = stored_run(tmp_path, 3, changes=unreadable(1)), f"file://{tmp_path}/mlruns"
    logged = log_to_mlflow(store, uri)
    client = tracking.MlflowClient(uri)
    run = client.get_run(logged.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["hdm/insertion_auc"] == 0.25
    assert run.data.params["dataset.kind"] == "folder"
    assert {each.path for each in client.list_artifacts(logged.run_id)} == {"report", "run.json", "tables.parquet"}
    assert any(each.path.endswith(".jpg") for each in client.list_artifacts(logged.run_id, "report/images"))
    assert "MLflow: " in refused(lambda: log_to_mlflow(store, "nosuch://server"))

    def broken(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(logger, "_artifacts", broken)
    with pytest.raises(RunError, match=r"no space left; its run .* has the status FAILED"):
        log_to_mlflow(store, uri, "second")
