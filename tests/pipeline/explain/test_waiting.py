"""Slow storage: the next batch is read while the network works on this one, and the shard says how long it waited."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hdm_core import METHODS, Classifier, Method, Preprocess
from hdm_core.methods import ExplainJob, RawMaps
from hdm_core.settings import Settings
from pipeline.datasets import Sample, batches
from pipeline.explain.results import ShardResult, ShardSeconds
from pipeline.explain.shard import explain_shard
from pipeline.plan import Plan, Shard
from pipeline.runs import RunStore
from tests.support.plans import configuration, save_picture
from tests.support.tiny_networks import smooth

IMAGES, BATCH, READ = 12, 2, 0.05  # seconds to read one image; a batch is read in parallel


@pytest.fixture
def explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], tuple[ShardResult, RunStore]]:
    """Explain and commit a shard on slow storage, with a method that takes some seconds per batch."""
    samples = []
    for number in range(IMAGES):
        save_picture(tmp_path / f"{number}.png", seed=number)
        samples.append(Sample(f"{number}.png", str(tmp_path / f"{number}.png"), None, None, None, None))
    read_image = batches.read_image

    def read_slowly(*arguments: Any) -> Any:
        time.sleep(READ)
        return read_image(*arguments)

    monkeypatch.setattr(batches, "read_image", read_slowly)

    def explain(seconds: float) -> tuple[ShardResult, RunStore]:
        def run(job: ExplainJob, settings: Settings) -> RawMaps:
            time.sleep(seconds)
            job.passes.add(len(job.images))
            return RawMaps(job.images[:, 0])

        method = Method("slow", "Slow", "tests", Settings, {"only": Settings()}, "only", run, lambda settings, height, width: 1)
        monkeypatch.setitem(METHODS, "slow", method)
        compute = {"batch_size": BATCH, "shard_size": IMAGES}
        config = configuration(methods=["slow"], metrics="none", compute=compute, output=str(tmp_path / f"runs-{seconds}"))
        classifier, shard = Classifier(smooth(3), Preprocess(resize=16, crop=16)), Shard(0, 0, IMAGES)
        result = explain_shard(classifier, config, shard, samples)
        store = RunStore.from_config(config)
        store.create(Plan(config, samples, [shard], (16, 16), classifier.weights_digest(), {}))
        assert store.write_shard(shard, result.arrays, result.records, result.image_facts, config, metadata=result.seconds.metadata())
        return result, store

    return explain


def test_the_network_waits_for_the_first_batch_alone_and_the_records_say_so(
    explained: Callable[[float], tuple[ShardResult, RunStore]],
) -> None:
    slow_network, _ = explained(4 * READ)
    slow_storage, store = explained(0.0)

    # One after another they would have waited READ for each of the six batches.
    assert slow_network.seconds.waiting < slow_network.seconds.explaining / 4
    assert slow_storage.seconds.waiting > IMAGES / BATCH * READ / 2
    assert slow_network.seconds.share > slow_storage.seconds.share
    assert {record.status for record in slow_network.records} == {"ok"}
    metadata = pq.read_schema(io.BytesIO(store.storage.read("records/part-000000.parquet"))).metadata
    assert float(metadata[b"hdm.seconds_waiting"]) == pytest.approx(slow_storage.seconds.waiting, abs=1e-3)
    assert float(metadata[b"hdm.seconds_explaining"]) == pytest.approx(slow_storage.seconds.explaining, abs=1e-3)
    assert b"hdm.schema_version" in metadata
    assert store.records().num_rows == IMAGES  # readers of the columns see no difference


def test_a_shard_without_open_images_waited_for_nothing() -> None:
    assert ShardSeconds(0.0, 0.0).share == 1.0
    assert ShardSeconds(3.0, 1.0).share == 0.75
