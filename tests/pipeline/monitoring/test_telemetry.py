"""The metrics of a real Ray after a run agree with what the run left on storage."""

from __future__ import annotations

import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config.load import load_config
from pipeline.execution.driver import explain_run, plan_run
from pipeline.monitoring import telemetry
from pipeline.runs.leases import lease_name
from pipeline.runs.statuses import worst_statuses
from pipeline.storage.objects import Storage, to_json
from tests.support.small_run import config, photographs

Scraped = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture
def measured_ray() -> Iterator[str]:
    """A Ray that reports every second; the URL of its node's metrics."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config={"metrics_report_interval_ms": 1000})
    (node,) = ray.nodes()
    yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    ray.shutdown()


def scrape(url: str) -> Scraped:
    """Our series, summed over the processes that report them: values by name and by the values of our labels."""
    found: Scraped = defaultdict(lambda: defaultdict(float))
    with urllib.request.urlopen(url, timeout=10) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                labels = (sample.labels.get(key) for key in ("run", "status", "outcome", "state"))
                found[sample.name][tuple(label for label in labels if label is not None)] += sample.value
    return found


@pytest.mark.server
def test_the_metrics_say_what_the_records_say(measured_ray: str, tmp_path: Path) -> None:
    images = photographs(tmp_path / "photographs", 5)
    (images / "cats" / "broken.png").write_bytes(b"no picture")
    plan, store = plan_run(load_config(str(config(tmp_path, images)), {"methods": ["dm"], "dm.steps": 1}))
    dead = {"holder": "another-host 1 0", "beat": 0, "until": "2020-01-01T00:00:00+00:00"}
    store.storage.write(lease_name(1), to_json(dead))
    explain_run(plan, store)
    attempts = iter([OSError("away"), OSError("still away")])

    def flaky() -> None:
        if (error := next(attempts, None)) is not None:
            raise error

    Storage("memory://telemetry")._retry(flaky)

    deadline, ours = time.monotonic() + 120, scrape(measured_ray)
    while time.monotonic() < deadline and ours["ray_hdm_storage_retries_total"] != {(): 2}:  # the last number to be exported
        time.sleep(1)
        ours = scrape(measured_ray)
    assert ours["ray_hdm_images_total"] == {("small", status): count for status, count in worst_statuses(store.records()).items()}
    assert ours["ray_hdm_images_total"] == {("small", "ok"): 5, ("small", "unreadable"): 1}
    assert ours["ray_hdm_passes_total"] == {("small",): sum(store.records()["passes"].to_pylist())}
    parts = [path for folder in ("records", "curves", "images") for path in (tmp_path / "out/small" / folder).iterdir()]
    chunks = [path for path in (tmp_path / "out/small/maps.zarr").rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert ours["ray_hdm_bytes_written_total"] == {("small",): sum(path.stat().st_size for path in parts + chunks)}
    assert ours["ray_hdm_shards_total"] == {("small", "done"): 3}
    assert ours["ray_hdm_shard_seconds_count"] == {("small",): 3}
    assert ours["ray_hdm_shard_seconds_sum"][("small",)] > 0
    assert ours["ray_hdm_shards_left"] == {("small",): 0}
    assert ours["ray_hdm_workers"].keys() == {("small", state) for state in ("at_work", "idle", "starting")}
    assert ours["ray_hdm_lease_takeovers_total"] == {(): 1}
    assert ours["ray_hdm_storage_retries_total"] == {(): 2}
    assert {name for name in ours if name.startswith("ray_hdm_")} <= expected_names()


def expected_names() -> set[str]:
    """Every name under which Prometheus may see the metrics that telemetry declares."""
    endings = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}
    return {f"ray_{name}{ending}" for name, (kind, _, _) in telemetry.METRICS.items() for ending in endings[kind]}


def test_where_no_ray_runs_nothing_is_counted() -> None:
    telemetry._metric.cache_clear()
    for name, (kind, _, labels) in telemetry.METRICS.items():
        tell = {"Counter": telemetry.count, "Gauge": telemetry.set_gauge, "Histogram": telemetry.observe}[kind]
        tell(name, 1, **dict.fromkeys(labels, "x"))
    assert telemetry._metric.cache_info().currsize == 0
