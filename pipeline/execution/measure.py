"""Measurement of a finished run from its stored maps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from hdm_core import MetricSettings
from pipeline.config.diff import differences
from pipeline.config.load import load_config
from pipeline.config.messages import describe
from pipeline.config.schema import ComputeConfig, RunConfig
from pipeline.errors import InputError
from pipeline.execution.driver import RunSummary, require_conditional
from pipeline.execution.tasks import ShardTasks
from pipeline.monitoring.progress import ProgressCallback, no_progress
from pipeline.plan import Plan, make_plan
from pipeline.runs import RunStore
from pipeline.runs.measured import (
    MeasureState,
    already_measured,
    configured_metrics,
    explicit,
    read_state,
    same_numbers,
    united,
    write_state,
)
from pipeline.runs.metadata import check_same_plan
from pipeline.runs.store import MAX_PARALLEL_REQUESTS
from pipeline.runs.stored_shard import measured_with, read_commit

_log = logging.getLogger(__name__)

# Keys of `compute` that are part of a run's identity: with others the numbers would differ in their last bits.
_OF_IDENTITY = {"shard_size", "batch_size", "threads", "precision", "cuda_graphs"}

_REMEDY = "put back what it was explained with, to measure it"


@dataclass(frozen=True)
class Measurement:
    """Measurement of a finished run that was asked for.

    Attributes:
        config: of the run, with the metrics that it will have and the resources to use.
        todo: indices of the shards that are still to be measured.
    """

    store: RunStore
    config: RunConfig
    todo: Sequence[int]

    @property
    def metrics(self) -> MetricSettings:
        """Settings of the metrics; every metric is named."""
        return explicit(self.config.metrics or MetricSettings())


def plan_measure(url: str, changes: Mapping[str, Any] | None = None, *, replace_numbers: bool = False) -> Measurement:
    """Decide which shards are to be measured, and with which settings.

    Nothing is written. Without changes the settings are those that the run has or is being measured with, else the default ones. Metrics
    of the same baselines and protocol are added to those that the run has.

    Args:
        url: the run's folder or URL.
        changes: dotted keys below `metrics` and `compute` -> values.
        replace_numbers: replace the numbers of other settings.

    Raises:
        InputError: if there is no such run, it is not finished, a key or a metric is unknown, or it has numbers of other settings.
    """
    store = RunStore.open(url)
    info = store.metadata()
    if old := info.get("renamed_keys"):
        raise InputError(f"{url} was made by an earlier version of hdm, whose configuration has {', '.join(old)}: it can only be read")
    if missing := int(info["shards"]) - len(store.done()):
        raise InputError(f"{url}: {missing} of {info['shards']} shards are open; finish it with hdm run or hdm repair, then measure it")
    of_metrics, of_compute = _split(changes or {})
    output, _, name = store.url.rpartition("/")
    config = load_config({**info["config"], "output": output, "name": name}, of_compute)
    configured, state = configured_metrics(info), read_state(store.storage)
    current = configured if state is None else state.settings
    wanted = _wanted(url, current, of_metrics, replace_numbers)
    store = RunStore.from_config(config, config.compute.storage_timeout)
    with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as readers:
        shards = sorted(store.done())
        found = dict(zip(shards, readers.map(lambda shard: measured_with(read_commit(store, shard), configured), shards), strict=True))
    todo = [shard for shard, settings in found.items() if not already_measured(settings, wanted)]
    return Measurement(store, config.model_copy(update={"metrics": wanted}), todo)


def measure_run(measurement: Measurement, on_progress: ProgressCallback = no_progress) -> RunSummary:
    """Measure the open shards of a run.

    A measurement that was interrupted is continued with the shards that are left, and gives the same bytes.

    Raises:
        InputError: if the classifier or the dataset are no longer those of the run.
        RunError: if an image has changed, a stored map is damaged, no worker can start, or the storage fails.
    """
    store, config = measurement.store, measurement.config
    images, shards = int(store.metadata()["images"]), int(store.metadata()["shards"])
    summary = RunSummary(store, images, shards, already_done=shards - len(measurement.todo))
    if measurement.todo:
        plan = _plan(store, config)
        todo = [shard for shard in plan.shards if shard.index in measurement.todo]
        write_state(store.storage, MeasureState(measurement.metrics, finished=False))
        summary.execute(ShardTasks(plan, todo, None, on_progress, measuring=True))
    state = MeasureState(measurement.metrics, finished=not summary.failed_shards)
    if read_state(store.storage) not in (None, state):
        write_state(store.storage, state)
    summary.count_statuses()
    return summary


def _plan(store: RunStore, config: RunConfig) -> Plan:
    """Plan the run again as it was started, and with the metrics to measure."""
    info = store.metadata()
    plan = make_plan(config.model_copy(update={"metrics": configured_metrics(info)}))
    check_same_plan(store.url, info, plan, remedy=_REMEDY)
    if info.get("interface") not in (None, plan.preprocess_identity):
        differing = ", ".join(differences(info["interface"], plan.preprocess_identity))
        raise InputError(
            f"{store.url} was explained with another classifier: {differing}; put back what it was explained with, to measure it"
        )
    _refuse_uninstalled(store)
    require_conditional(store, config.compute)
    return replace(plan, config=config)


def _split(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changes of the metrics, and those of the resources."""
    of_metrics: dict[str, Any] = {}
    of_compute: dict[str, Any] = {}
    allowed = [key for key in ComputeConfig.model_fields if key not in _OF_IDENTITY]
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if key == "metrics" and isinstance(value, Mapping):
            of_metrics.update(value)
        elif section == "metrics" and name:
            of_metrics[name] = value
        elif section == "compute" and name not in _OF_IDENTITY:
            of_compute[key] = value
        elif section == "compute":
            raise InputError(f"--set {key}: the maps were computed with another value, and so would be the numbers; {_listed(allowed)}")
        else:
            raise InputError(f"--set {key}: a finished run keeps its maps; only keys below metrics and compute can be set")
    return of_metrics, of_compute


def _listed(keys: Sequence[str]) -> str:
    return f"of compute can be set: {', '.join(keys)}"


def _wanted(url: str, current: MetricSettings | None, changes: Mapping[str, Any], replace_numbers: bool) -> MetricSettings:
    """Return the settings that a run will have, every metric named."""
    base = (current or MetricSettings()).model_dump(mode="json")
    if "baseline" in changes:
        base.pop("baselines")
    if "baselines" in changes:
        base.pop("baseline")
    try:
        wanted = explicit(MetricSettings.model_validate({**base, **changes}))
        known = None if current is None else explicit(current)
    except ValidationError as error:
        raise InputError(f"{url}: {describe(error, MetricSettings, 'metrics.')}") from None
    except ValueError as error:
        raise InputError(f"{url}: metrics.names: {error}") from None
    if known is None or replace_numbers:
        return wanted
    if not same_numbers(known, wanted):
        raise InputError(f"{url} has numbers with {_text(known)}, not with {_text(wanted)}; --replace replaces them")
    return united(known, wanted)


def _text(settings: MetricSettings) -> str:
    return f"baseline {' and '.join(settings.baselines)} and protocol {settings.protocol}"


def _refuse_uninstalled(store: RunStore) -> None:
    """Refuse records with metrics that are not installed here: they would be lost."""
    if names := store.uninstalled_metrics().names:
        raise InputError(f"{store.url} has numbers of {', '.join(names)}, which no package here measures: install it, they would be lost")
