"""Settings with which a run's maps were measured: measure.json, and the commits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hdm_core import METRICS, MetricSettings
from hdm_core.metrics.registry import GROUPS, chosen_metrics
from pipeline.storage.objects import Storage, to_json

NAME = "measure.json"


@dataclass(frozen=True)
class MeasureState:
    """State of `hdm measure` on a run.

    Attributes:
        settings: with which its maps are measured, or are being measured.
        finished: True if all maps are.
    """

    settings: MetricSettings
    finished: bool


def explicit(settings: MetricSettings) -> MetricSettings:
    """Return settings that name every metric, whatever is registered later.

    Raises:
        ValueError: for a metric that is not registered.
    """
    return settings.model_copy(update={"names": tuple(chosen_metrics(settings.names))})


def as_configured(settings: MetricSettings) -> MetricSettings:
    """Return settings as configured: without names for the paper's metrics."""
    return settings.model_copy(update={"names": None}) if list(settings.names or ()) == chosen_metrics(None) else settings


def same_numbers(one: MetricSettings | None, other: MetricSettings) -> bool:
    """Return True if a metric has the same values with both settings."""
    return one is not None and (one.baselines, one.protocol) == (other.baselines, other.protocol)


def already_measured(found: MetricSettings | None, wanted: MetricSettings | None) -> bool:
    """Return True if explicit settings are those wanted, with no more metrics."""
    if found is None or wanted is None:
        return found is wanted
    return same_numbers(found, wanted) and {*(found.names or ())} == {*(explicit(wanted).names or ())}


def united(one: MetricSettings, other: MetricSettings) -> MetricSettings:
    """Return the second settings with the metrics of both."""
    names = {*(explicit(one).names or ()), *(explicit(other).names or ())}
    return other.model_copy(update={"names": tuple(METRICS.sort(names))})


def of_commit(commit: Mapping[str, Any], configured: MetricSettings | None) -> MetricSettings | None:
    """Return the settings with which a shard was measured; None if it was not.

    Args:
        configured: the run's own, of run.json, which hold where no later measurement was committed.
    """
    if "measured" in commit:
        return MetricSettings.model_validate(commit["measured"])
    return None if configured is None else explicit(configured)


def installed_metrics(settings: MetricSettings | None) -> set[str]:
    """Return the registered metrics that settings name; the paper's for None.

    Metrics of plugins that are not installed here are left out, so that a run of them can be read.
    """
    names = None if settings is None or settings.names is None else [name for name in settings.names if name in METRICS or name in GROUPS]
    return set(chosen_metrics(names)) if names is None or names else set()


def settings_hash(settings: MetricSettings) -> str:
    """Return the sha256 of settings as canonical JSON."""
    return hashlib.sha256(json.dumps(settings.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_state(storage: Storage) -> MeasureState | None:
    """Read measure.json; None if the run was never measured later."""
    try:
        state = storage.read_json(NAME)
    except FileNotFoundError:
        return None
    return MeasureState(MetricSettings.model_validate(state["settings"]), bool(state["finished"]))


def write_state(storage: Storage, state: MeasureState) -> None:
    """Write measure.json."""
    content = {"settings": state.settings.model_dump(mode="json"), "hash": settings_hash(state.settings), "finished": state.finished}
    storage.write(NAME, to_json(content))


def configured_metrics(info: Mapping[str, Any]) -> MetricSettings | None:
    """Return the metrics of run.json's configuration; None for maps alone."""
    metrics = info["config"].get("metrics", {})
    return None if metrics is None else MetricSettings.model_validate(metrics)


def measured_settings(storage: Storage, info: Mapping[str, Any]) -> MetricSettings | None:
    """Return the settings of a run's numbers; None if its maps were not measured.

    Args:
        info: the content of run.json.
    """
    state = read_state(storage)
    return configured_metrics(info) if state is None else as_configured(state.settings)
