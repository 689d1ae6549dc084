"""Creation of a run's Ray actors; shared by the driver and the cost probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle

from pipeline.execution.cluster import CPU_ENVIRONMENT, WorkerResources
from pipeline.execution.pool import COMMITS, PROGRESS
from pipeline.execution.worker_actor import WorkerActor
from pipeline.plan import Plan


def actor_factory(plan: Plan, resources: WorkerResources, measuring: bool = False) -> Callable[[], ActorHandle[WorkerActor]]:
    """Return a function that creates one worker of a run on the connected cluster.

    Args:
        measuring: the workers measure maps that are stored, see `Worker`.
    """
    shared = ray.put(plan.config)
    actor = ray.remote(concurrency_groups={PROGRESS: 1, COMMITS: 1})(WorkerActor)  # type: ignore[call-overload]
    options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_restarts": 0, "max_task_retries": 0}
    if resources.gpus == 0:
        options["runtime_env"] = {"env_vars": CPU_ENVIRONMENT}

    def create_actor() -> ActorHandle[WorkerActor]:
        handle: ActorHandle[WorkerActor] = actor.options(**options).remote(shared, plan.weights_digest, resources.gpus, measuring)
        return handle

    return create_actor
