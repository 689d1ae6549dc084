"""`hdm measure` on two Ray workers with S3: the numbers of a run in the driver's process on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline
from pipeline.execution.measure import measure_run, plan_measure
from pipeline.runs.verify import verify
from tests.pipeline.execution.test_measure import columns, keys
from tests.support.plans import save_picture
from tests.support.s3_server import S3


@pytest.mark.server
@pytest.mark.slow
def test_workers_on_ray_measure_a_run_on_s3_with_the_same_numbers(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.server.endpoint)
    (tmp_path / "images.csv").write_text("\n".join(["path,label", *(f"{number}.png,{number % 2}" for number in range(4))]) + "\n")
    for number in range(4):
        save_picture(tmp_path / f"{number}.png", seed=number)
    direct = pipeline.run(keys(tmp_path, name="direct", metrics={"baselines": ["mean", "blur"]})).store
    later = pipeline.run(keys(tmp_path, output=s3.url, storage=s3.storage)).store
    on_ray = {"compute.executor": "ray", "compute.workers": 2, "compute.gpus_per_worker": 0}
    summary = measure_run(plan_measure(later.url, {"metrics.baselines": ["mean", "blur"], **on_ray}))
    assert (summary.failed_shards, summary.already_done) == ([], 0)
    assert columns(later.records()) == columns(direct.records())
    assert list(map(columns, later.measures())) == list(map(columns, direct.measures()))
    assert verify(later).damaged == {}
    assert plan_measure(later.url).todo == []
