"""Fractions of a GPU on a real Ray, from the configuration to the cluster's books; the GPU exists in these books only."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from pipeline.config.load import load_config
from pipeline.errors import InputError
from pipeline.execution.driver import explain_run, plan_run
from pipeline.monitoring.progress import Progress
from tests.support.paths import COUNTED_GPUS
from tests.support.small_run import config, photographs

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def one_gpu() -> Iterator[None]:
    """Ray with one GPU, in whose place its workers use the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(COUNTED_GPUS), *sys.path]))
        ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.mark.usefixtures("one_gpu")
def test_a_quarter_of_a_gpu_each_makes_four_workers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = str(config(tmp_path, photographs(tmp_path / "photographs", 6)))
    changes = {"compute.gpus_per_worker": 0.25, "compute.workers": "auto", "compute.shard_size": 1, "methods": ["grad_cam"]}
    plan, store = plan_run(load_config(source, changes))
    free: list[float] = []
    states: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        free.append(ray.available_resources().get("GPU", 0.0))
        states.append(progress)

    with caplog.at_level(logging.INFO, logger="pipeline"):
        outcome = explain_run(plan, store, on_progress)
    assert "4 workers with 0.25 GPU each" in caplog.text
    assert min(free) == 0, "four quarters are the whole GPU"
    assert outcome.statuses == {"ok": 6}
    assert states[-1].done == states[-1].total == 6
    records = pq.read_table(Path(store.url) / "records")
    assert set(records["device"].to_pylist()) == {"cpu"}, "there is no CUDA here, and the records must say so"


@pytest.mark.usefixtures("one_gpu")
def test_more_gpus_than_there_are_is_a_mistake(tmp_path: Path) -> None:
    source = str(config(tmp_path, photographs(tmp_path / "photographs", 2)))
    plan, store = plan_run(load_config(source, {"compute.gpus_per_worker": 2}))
    with pytest.raises(InputError, match="the cluster has 1 GPUs"):
        explain_run(plan, store)
