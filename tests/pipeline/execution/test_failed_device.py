"""A device that fails for good: its worker is replaced, its shard tried again, and no image is recorded as failed."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from PIL import Image

from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.errors import RunError
from pipeline.execution import worker_actor as actors
from pipeline.execution.driver import RunSummary, explain_run, plan_run
from pipeline.execution.worker import Worker
from pipeline.execution.worker_actor import WorkerActor
from pipeline.plan import make_plan
from pipeline.runs import RunStore
from pipeline.runs.leases import is_free
from tests.pipeline.conftest import Ended
from tests.support.fault_runs import contents
from tests.support.plans import mapping, refused, save_picture

IMAGES, SHARDS, WHITE_SHARD = 10, 5, 2
REASON = r"the device failed \(AcceleratorError: CUDA error: an illegal memory access was encountered\)"


def config(folder: Path, name: str, executor: str, white: bool = False, **compute: Any) -> RunConfig:
    """Return a run over ten photographs in five shards, whose device fails once the file `armed` exists."""
    if not (folder / "images").exists():
        for number in range(IMAGES):
            save_picture(folder / "images" / f"{number}.png", seed=number)
        Image.new("RGB", (24, 20), "white").save(folder / "images" / f"{2 * WHITE_SHARD}.png")
    arguments = {"armed": str(folder / "armed"), "white": white}
    return load_config(
        mapping(
            name=name,
            dataset={"kind": "folder", "root": str(folder / "images")},
            classifier={"source": "import", "factory": "tests.support.failing_device:network", "arguments": arguments},
            methods=["grad_cam", "gradient"],
            compute={"executor": executor, "workers": 2, "shard_size": 2, "batch_size": 2, **compute},
            output=str(folder / "runs"),
        )
    )


def run(config: RunConfig, armed: Path | None) -> tuple[RunSummary, RunStore]:
    """Run to the end; the device may fail from after the plan on."""
    plan, store = plan_run(config)
    if armed is not None:
        armed.touch()
    return explain_run(plan, store), store


@pytest.fixture
def workers_import_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def leases_are_free(store: RunStore) -> bool:
    return all(is_free(store.storage.read_json(f"leases/{name}")) for name in store.storage.names("leases"))


def test_in_the_drivers_own_process_the_run_stops_and_the_next_resumes(tmp_path: Path) -> None:
    local = config(tmp_path, "local", "local")
    with pytest.raises(RunError, match=f"^{REASON}, and this process can no longer use it$"):
        run(local, tmp_path / "armed")
    store = RunStore.from_config(local)
    assert store.done() == set(), "nothing of the shard is committed"
    assert leases_are_free(store)
    summary, _ = run(local, None)
    assert set(summary.statuses) <= {"ok", "flat"}
    assert contents(store) == contents(run(config(tmp_path, "undisturbed", "local"), None)[1])


def test_an_actor_reports_it_with_the_lines_of_its_log_and_gives_the_lease_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.signal, "signal", lambda *_: None)
    on_ray = config(tmp_path, "ray", "ray")
    plan, store = plan_run(on_ray)
    packages = [logging.getLogger(name) for name in ("pipeline", "hdm_core")]
    before = [(logger.level, list(logger.handlers)) for logger in packages]
    try:
        actor = WorkerActor(on_ray, plan.weights_digest)
        logging.getLogger("hdm_core.batch_limit").warning("gradient: out of memory")
        (tmp_path / "armed").touch()
        report = actor.begin(plan.shards[1], plan.samples[2:4])
    finally:
        for logger, (level, handlers) in zip(packages, before, strict=True):
            logger.setLevel(level)
            logger.handlers[:] = handlers
    assert report is not None
    assert report.device_failure is not None
    assert "illegal memory access" in report.device_failure
    assert "\n" not in report.device_failure
    assert report.lines == ((logging.WARNING, "gradient: out of memory"),)
    assert store.done() == set()
    assert leases_are_free(store)


def test_a_classifier_that_does_not_fit_is_an_error_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 98.00 MiB.\nGPU 0 has a total capacity of 79 GiB")

    monkeypatch.setattr("hdm_core.classifier.Classifier.to", no_room)
    local = config(tmp_path, "local", "local")
    with pytest.raises(torch.OutOfMemoryError, match=r"does not fit into the free memory of cpu: start fewer workers per GPU \(a larger"):
        Worker(local, make_plan(local).weights_digest)


@pytest.mark.parametrize("gpus", [1.0, 0.5])
def test_a_worker_whose_gpu_torch_cannot_use_refuses_to_start(gpus: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, it computed on the CPU without a word, with other maps than its neighbours'."""
    monkeypatch.setattr(
        "pipeline.execution.worker_device.cuda_fault", lambda: "CUDA initialization: The NVIDIA driver on your system is too old."
    )
    on_ray = config(tmp_path, "ray", "ray")
    message = refused(lambda: Worker(on_ray, "", gpus=gpus))
    assert message.startswith(f"compute.gpus_per_worker is {gpus:g}, but torch {torch.__version__} on ")
    assert "cannot use its GPU: CUDA initialization: The NVIDIA driver on your system is too old.; install a driver and a torch" in message
    assert Worker(on_ray, "", gpus=0)._device.type == "cpu", "the cluster has no GPU: the CPU, with the line of the allocation"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Worker(on_ray, "")._device.type == "cpu", "in the driver's process"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "cannot use its GPU" in refused(lambda: Worker(on_ray, ""))


def test_a_gpu_without_memory_for_a_context_is_an_error_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(_gpus: float) -> None:
        raise torch.AcceleratorError("CUDA error: out of memory\nSearch for")

    monkeypatch.setattr("pipeline.execution.worker_device.cuda_fault", lambda: None)
    monkeypatch.setattr("pipeline.execution.worker_device.pick_device", no_room)
    with pytest.raises(torch.OutOfMemoryError, match=r"^the GPU has no free memory: start fewer workers per GPU \(a larger") as caught:
        Worker(config(tmp_path, "ray", "ray"), "", gpus=0.5)
    assert "\n" not in str(caught.value)


@pytest.mark.server
@pytest.mark.slow
def test_a_run_whose_workers_cannot_use_their_gpu_ends_with_one_line(tmp_path: Path) -> None:
    """Ray counts a GPU here, and torch sees none."""
    plan, store = plan_run(config(tmp_path, "blind", "ray", gpus_per_worker=0.5, max_attempts=1))
    ray.init(address="local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(
            RunError,
            match=r"^no worker could start, tried 1 times: pipeline.errors.InputError: .* but torch .* cannot use its GPU: ",
        ):
            explain_run(plan, store)
    finally:
        ray.shutdown()


def test_limits_of_a_worker_outlive_its_shards(tmp_path: Path) -> None:
    local = config(tmp_path, "local", "local")
    plan, _ = plan_run(local)
    worker = Worker(local, plan.weights_digest)
    worker.run(plan.shards[0], plan.samples[:2])
    worker._limits["gradient"].size = 1
    worker.run(plan.shards[1], plan.samples[2:4])
    sizes = {"targets": 2, "grad_cam": 2, "gradient": 1, "metrics": 2, "baselines": 2}
    assert {name: limit.size for name, limit in worker._limits.items()} == sizes


@pytest.mark.parametrize(
    "arguments",
    [("check", "{source: import, factory: 'tests.support.failing_device:failed'}"), ("explain",), ("run",)],
    ids=lambda words: words[0],
)
def test_a_command_ends_with_one_line_and_exit_code_1(arguments: tuple[str, ...], tmp_path: Path, here: Any) -> None:
    classifier = "{source: import, factory: 'tests.support.failing_device:failed'}"
    if arguments == ("explain",):
        arguments = ("explain", str(save_picture(tmp_path / "image.png")), "--classifier", classifier)
    if arguments == ("run",):
        save_picture(tmp_path / "images" / "0.png")
        arguments = ("run", "demo", "--set", f"dataset={{kind: folder, root: {tmp_path / 'images'}}}", "--set", f"classifier={classifier}")
        arguments = (*arguments, "--set", "methods=[gradient]", "--output", str(tmp_path / "runs"))
    ended: Ended = here(*arguments)
    assert ended.code == 1
    assert ended.out == ""
    (line,) = ended.err.strip().splitlines()
    assert line == (
        "hdm: the device failed (AcceleratorError: CUDA error: an illegal memory access was encountered), "
        "and this process can no longer use it; run it again"
    )


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests")
def test_a_worker_whose_device_fails_is_replaced_and_the_bytes_are_those_of_a_run_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        summary, store = run(config(tmp_path, "failing", "ray"), tmp_path / "armed")
    assert not (tmp_path / "armed").exists(), "the device must have failed"
    assert [message for message in caplog.messages if "the device failed" in message and message.endswith("its worker is replaced")]
    assert summary.failed_shards == []
    assert store.done() == set(range(SHARDS))
    assert set(summary.statuses) <= {"ok", "flat"}
    assert contents(store) == contents(run(config(tmp_path, "undisturbed", "local"), None)[1])


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests")
def test_a_shard_that_fails_the_device_of_every_worker_is_set_aside_alone(tmp_path: Path) -> None:
    armed = tmp_path / "armed"
    summary, store = run(config(tmp_path, "white", "ray", white=True), armed)
    assert [failed.shard.index for failed in summary.failed_shards] == [WHITE_SHARD]
    assert summary.failed_shards[0].error.startswith("the device failed (AcceleratorError: CUDA error: an illegal memory access")
    assert store.done() == set(range(SHARDS)) - {WHITE_SHARD}
    armed.unlink()
    summary, store = run(config(tmp_path, "white", "ray", white=True), None)
    assert summary.failed_shards == []
    assert contents(store) == contents(run(config(tmp_path, "undisturbed", "local"), None)[1])
