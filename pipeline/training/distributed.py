"""Several processes that train together: DistributedDataParallel, started and looked after by Ray Train."""

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
from pipeline.training.loop import TrainingState
from pipeline.training.progress import Epoch, Show
from pipeline.training.store import TrainingStore
from pipeline.training.worker import TrainingJob, train_worker

_LOOK = 1.0  # seconds between two looks at the history


def train_distributed(job: TrainingJob, workers: int, show: Show) -> TrainingState:
    """Trains on so many workers; where one is lost, all start again from the last epoch that was saved.

    Raises:
        InputError: if the cluster has too few processors.
        RunError: if workers were lost as often as they may.
    """
    compute = job.config.compute
    with cluster(compute.ray_address):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = compute.gpus_per_worker if resources.get("GPU", 0) else 0
        kind = "GPU" if gpus else "CPU"
        if workers > resources.get(kind, 0):
            raise InputError(f"compute.workers is {workers}, but the cluster has {resources.get(kind, 0):g} {kind}s; ask for fewer")
        folder = TrainingStore.at(job.config)
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"job": job, "gpus": gpus},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(gpus)),
            run_config=RunConfig(  # type: ignore[call-arg] # the type checker sees Ray Train's first version
                name="ray",
                storage_path=folder.storage.path(""),
                storage_filesystem=PyFileSystem(FSSpecHandler(folder.storage.fs)),
                failure_config=FailureConfig(max_failures=compute.max_attempts - 1),
                worker_runtime_env={} if gpus else {"env_vars": CPU_ENVIRONMENT},
            ),
        )
        with ThreadPoolExecutor(1) as aside:
            told = len(folder.history())
            fitting = aside.submit(trainer.fit)
            ended = False
            while not ended:
                ended = wait([fitting], _LOOK).done == {fitting}
                for entry in folder.history()[told:]:
                    told += 1
                    show(Epoch(told, job.config.recipe.epochs, entry))
            try:
                fitting.result()
            except ray.train.TrainingFailedError as error:
                raise RunError(f"{folder.url}: the workers failed: {_cause(error)}") from None
        folder.storage.fs.rm(folder.storage.path("ray"), recursive=True)
        return folder.load()


def _worker(config: dict[str, Any]) -> None:
    """One process of several; the first one writes."""
    context = ray.train.get_context()
    train_worker(config["job"], None, config["gpus"], context.get_local_world_size(), lambda _: None, saves=context.get_world_rank() == 0)


def _cause(error: ray.train.TrainingFailedError) -> str:
    failures = getattr(error, "worker_failures", {})
    return one_line(next(iter(failures.values())) if failures else error)
