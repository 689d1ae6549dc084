"""Pareto benchmark: candidate settings on the same photographs, as ordinary runs.

The runs are stored and resumed like any other run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import resources
from statistics import fmean
from typing import Any

import yaml

from benchmarks.pareto.photographs import evenly_spaced, split_by_confidence, write_manifest
from hdm_core import METRICS
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.errors import InputError
from pipeline.execution.driver import explain_run, plan_run
from pipeline.monitoring.progress import ProgressCallback
from pipeline.runs import RunStore
from pipeline.storage.objects import Storage
from pipeline.tables.aggregate import aggregate, interval

# The paper's six; localisation needs ground truth, which not every case has.
PARETO_METRICS = [name for name, metric in METRICS.items() if not (metric.needs_region or metric.on_request)]
REFERENCE = "grad_cam"


@dataclass(frozen=True)
class Candidate:
    """Method with settings: one point of the figure."""

    id: str
    method: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """Result of a candidate on one case.

    Attributes:
        passes: passes per image.
        means: metric -> its mean over the photographs.
        gains: metric -> mean and half of the 95% interval of the paired difference, candidate minus reference.
    """

    case: str
    candidate: str
    photographs: int
    passes: float
    means: Mapping[str, float]
    gains: Mapping[str, tuple[float, float]]


def candidates(names: Sequence[str] | None = None) -> list[Candidate]:
    """Load the candidates that are not costly, or the named ones, and the reference.

    Raises:
        InputError: for an unknown name.
    """
    packaged: dict[str, dict[str, Any]] = yaml.safe_load(
        resources.files("benchmarks.pareto").joinpath("candidates.yaml").read_text("utf-8")
    )
    if unknown := [name for name in names or () if name not in packaged]:
        raise InputError(f"no candidate {unknown[0]!r}: choose from {', '.join(packaged)}")
    selected = []
    for name, entry in packaged.items():
        costly = entry.pop("costly", False)
        if name == REFERENCE or (not costly if names is None else name in names):
            selected.append(Candidate(name, entry.pop("method"), entry))
    return selected


def run_case(
    case: RunConfig, selected: Sequence[Candidate], split: str, count: int, show: Callable[[str], ProgressCallback]
) -> dict[str, RunStore]:
    """Run all candidates on photographs of a split; return candidate id -> run.

    A candidate that was run before is only read.

    Args:
        case: configuration that provides dataset, classifier, compute and output.
        split, count: half of the photographs to use, and how many of it.
        show: name of a run -> callback for its progress.

    Raises:
        InputError: if the case or a candidate cannot be run.
        RunError: if no worker can start.
    """
    storage = Storage(case.output, case.storage)
    dataset = _dataset(case, storage, split, count)
    stores = {}
    with _cluster(case):  # one for all runs
        for candidate in selected:
            plan, store = plan_run(_config(case, candidate, f"{case.name}-{split}-{count}", dataset))
            explain_run(plan, store, show(plan.config.name))
            aggregate(store)
            stores[candidate.id] = store
    return stores


def compare(case: str, stores: Mapping[str, RunStore]) -> list[Point]:
    """Compute one point per candidate of a case.

    Each uses the photographs that it has in common with the reference.

    Raises:
        InputError: if there are none.
    """
    records = {name: _records(store) for name, store in stores.items()}
    return [_point(case, name, by_image, records[REFERENCE]) for name, by_image in records.items()]


def _cluster(case: RunConfig) -> AbstractContextManager[object]:
    """Return the cluster of a case; none if it runs in this process."""
    if case.compute.executor == "local":
        return nullcontext()
    from pipeline.execution.cluster import cluster

    return cluster(case.compute.ray_address)


def _dataset(case: RunConfig, storage: Storage, split: str, count: int) -> str:
    """Return the URL of the manifest of a split; write it on first use."""
    name = f"{case.name}-{split}-{count}"
    if storage.exists(f"{name}.csv"):
        return storage.url(f"{name}.csv")
    return write_manifest(evenly_spaced(split_by_confidence(case)[split], count), storage, name, case.storage)


def _config(case: RunConfig, candidate: Candidate, group: str, dataset: str) -> RunConfig:
    return load_config(
        {
            **case.model_dump(include=set(RunConfig.model_fields)),
            "name": f"{group}-{candidate.id}",
            "dataset": {"kind": "manifest", "root": dataset},
            "methods": [candidate.method],
            candidate.method: dict(candidate.settings),
        }
    )


def _records(store: RunStore) -> dict[str, dict[str, Any]]:
    """Return image_id -> record for the images that have all metrics."""
    rows = store.records().select(["image_id", "status", "passes", *PARETO_METRICS]).to_pylist()
    return {row["image_id"]: row for row in rows if row["status"] == "ok"}


def _point(case: str, candidate: str, records: Mapping[str, dict[str, Any]], reference: Mapping[str, dict[str, Any]]) -> Point:
    both = [image for image in records if image in reference]
    if not both:
        raise InputError(f"{case}: no photograph has a map of {candidate} and one of {REFERENCE}")
    return Point(
        case,
        candidate,
        len(both),
        fmean(records[image]["passes"] for image in both),
        {metric: fmean(records[image][metric] for image in both) for metric in PARETO_METRICS},
        {metric: interval([records[image][metric] - reference[image][metric] for image in both]) for metric in PARETO_METRICS},
    )
