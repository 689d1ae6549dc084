"""Distributed training: DistributedDataParallel, run by Ray Train."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import ray
import ray.train
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from pipeline.errors import InputError, RunError, one_line
from pipeline.execution.cluster import CPU_ENVIRONMENT, cluster
from pipeline.monitoring.progress import ProgressCallback, no_progress
from pipeline.training.loop import TrainingState
from pipeline.training.progress import EpochTracker
from pipeline.training.store import TrainingStore
from pipeline.training.worker import TrainingJob, train_worker

_POLL_SECONDS = 1.0  # between two reads of the history


def train_distributed(job: TrainingJob, workers: int, on_progress: ProgressCallback) -> TrainingState:
    """Train on several workers.

    After the loss of one, all restart from the last saved epoch.

    Args:
        on_progress: called after every epoch.

    Raises:
        InputError: if the cluster has too few processors.
        RunError: if workers were lost `max_attempts` times.
    """
    compute = job.config.compute
    with cluster(compute.ray_address):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = compute.gpus_per_worker if resources.get("GPU", 0) else 0
        kind = "GPU" if gpus else "CPU"
        if workers > resources.get(kind, 0):
            raise InputError(f"compute.workers is {workers}, but the cluster has {resources.get(kind, 0):g} {kind}s; request fewer")
        store = TrainingStore.at(job.config)
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"job": job, "gpus": gpus},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(gpus)),
            run_config=RunConfig(  # type: ignore[call-arg] # the type checker sees Ray Train's first version
                name="ray",
                storage_path=store.storage.path(""),
                storage_filesystem=PyFileSystem(FSSpecHandler(store.storage.fs)),
                failure_config=FailureConfig(max_failures=compute.max_attempts - 1),
                worker_runtime_env={} if gpus else {"env_vars": CPU_ENVIRONMENT},
            ),
        )
        with ThreadPoolExecutor(1) as executor:
            epochs_reported = len(store.history())
            tracker = EpochTracker(epochs_reported, job.config.recipe.epochs)
            fitting = executor.submit(trainer.fit)
            ended = False
            while not ended:
                ended = wait([fitting], _POLL_SECONDS).done == {fitting}
                for entry in store.history()[epochs_reported:]:
                    epochs_reported += 1
                    on_progress(tracker.progress(epochs_reported, entry))
            try:
                fitting.result()
            except ray.train.TrainingFailedError as error:
                raise RunError(f"{store.url}: the workers failed: {_cause(error)}") from None
        store.storage.fs.rm(store.storage.path("ray"), recursive=True)
        return store.load()


def _worker(config: dict[str, Any]) -> None:
    """Train in one of several processes; the first one writes."""
    context = ray.train.get_context()
    saves = context.get_world_rank() == 0
    train_worker(config["job"], None, config["gpus"], context.get_local_world_size(), no_progress, saves)


def _cause(error: ray.train.TrainingFailedError) -> str:
    failures = getattr(error, "worker_failures", {})
    return one_line(next(iter(failures.values())) if failures else error)
