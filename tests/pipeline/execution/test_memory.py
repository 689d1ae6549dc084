"""Predicted memory of a run's workers, against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hdm_core import Classifier, Preprocess
from hdm_core.memory import MemoryNeed
from pipeline import preflight
from pipeline.errors import InputError
from pipeline.execution import memory
from pipeline.execution.memory import predict_memory
from pipeline.preflight import require_memory
from tests.support.plans import configuration, plan_of
from tests.support.tiny_networks import smooth

MIB = 2**20


@pytest.mark.parametrize(("executor", "host", "fitting"), [("local", 850, 2), ("ray", 850, 1)])
def test_a_worker_holds_its_process_the_largest_methods_tensors_and_its_shards(
    monkeypatch: pytest.MonkeyPatch, executor: str, host: int, fitting: int
) -> None:
    """The local worker is this process; one of Ray needs as much again, and holds two shards."""
    plan = plan_of(configuration({"compute.executor": executor, "compute.batch_size": 10, "compute.gpus_per_worker": 0}))
    needs = iter([MemoryNeed(MIB, MIB), MemoryNeed(10 * MIB, 2 * MIB)])
    monkeypatch.setattr(memory, "load_classifier", lambda *_: type("", (), {"to": lambda self, device: self})())
    monkeypatch.setattr(memory, "method_memory", lambda *_: next(needs))
    monkeypatch.setattr(memory, "forward_memory", lambda *_: MemoryNeed(0, MIB))
    monkeypatch.setattr(memory, "_weights", lambda _: 20 * MIB)
    monkeypatch.setattr(memory, "resident_memory", lambda: 800 * MIB)
    monkeypatch.setattr(memory, "available_memory", lambda: 950 * MIB)
    found = predict_memory(plan)
    shard = plan.bytes * plan.config.compute.shard_size // len(plan.samples)
    assert [need / MIB for need in found.methods.values()] == [11, 30, 10]
    assert found.host == host * MIB + (1 if executor == "local" else 2) * shard
    assert (found.batch, found.device, found.fitting) == (10, None, fitting)
    second = list(found.methods)[1]
    assert (
        f"850 MiB of the host per worker with batches of 10, most for {second} (predicted on this machine's CPU); {fitting} workers fit"
        == found.text()
    )
    assert "2,000 MiB of the GPU" in replace(found, device=2000 * MIB).text()


def test_too_little_free_memory_is_one_line_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Classifier(smooth(3), Preprocess(resize=16, crop=16))
    monkeypatch.setattr(preflight, "available_memory", lambda: 100 * 2**20)
    monkeypatch.setattr(preflight, "resident_memory", lambda: 800 * 2**20)
    require_memory(network, (16, 16), own_process=False)
    with pytest.raises(
        InputError, match=r"^memory: a worker needs at least 800 MiB for one image of 16 x 16, and 100 MiB are free"
    ) as raised:
        require_memory(network, (16, 16), own_process=True)
    assert "\n" not in str(raised.value)
