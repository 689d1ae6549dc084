"""What more passes buy: candidate settings on the same photographs, as ordinary runs that resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from statistics import fmean
from typing import Any

import yaml

from benchmarks.pareto.photographs import keep, photographs, spread
from hdm_core import METRICS
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.errors import InputError
from pipeline.execution.cluster import cluster
from pipeline.execution.driver import explain_run, plan_run
from pipeline.monitoring.progress import Show
from pipeline.runs import RunStore
from pipeline.storage.objects import Storage
from pipeline.tables.aggregate import aggregate, interval

# The paper's six; localisation needs ground truth, which not every case has.
PARETO_METRICS = [name for name, metric in METRICS.items() if not metric.needs_region]
REFERENCE = "grad_cam"


@dataclass(frozen=True)
class Candidate:
    """A point of the picture: a method with settings."""

    id: str
    method: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """What a candidate came to on one case.

    Attributes:
        passes: an image.
        means: metric -> its mean over the photographs.
        gains: metric -> mean and half 95% interval of the candidate minus the reference, photograph by photograph.
    """

    case: str
    candidate: str
    photographs: int
    passes: float
    means: Mapping[str, float]
    gains: Mapping[str, tuple[float, float]]


def candidates(names: Sequence[str] | None = None) -> list[Candidate]:
    """The packaged candidates that are not costly, or those that are named; the reference is always one.

    Raises:
        InputError: for a name that there is not.
    """
    packaged: dict[str, dict[str, Any]] = yaml.safe_load(resources.files("benchmarks.pareto").joinpath("candidates.yaml").read_text())
    if unknown := [name for name in names or () if name not in packaged]:
        raise InputError(f"no candidate {unknown[0]!r}: choose from {', '.join(packaged)}")
    chosen = []
    for name, entry in packaged.items():
        costly = entry.pop("costly", False)
        if name == REFERENCE or (not costly if names is None else name in names):
            chosen.append(Candidate(name, entry.pop("method"), entry))
    return chosen


def run_case(case: RunConfig, chosen: Sequence[Candidate], split: str, count: int, show: Callable[[str], Show]) -> dict[str, RunStore]:
    """Runs all candidates on `count` photographs of a case's split, candidate id -> its run; what was run before is only read.

    Args:
        case: whose dataset, classifier, compute and output are taken.
        show: gives the display of the run of that name.

    Raises:
        InputError: if the case or a candidate cannot be run.
        RunError: if no worker can start.
    """
    storage = Storage(case.output, case.storage)
    dataset = _dataset(case, storage, split, count)
    stores = {}
    with cluster(case.compute.ray_address):  # one for all runs
        for candidate in chosen:
            plan, store = plan_run(_config(case, candidate, f"{case.name}-{split}-{count}", dataset))
            explain_run(plan, store, show(plan.config.name))
            aggregate(store)
            stores[candidate.id] = store
    return stores


def compare(case: str, stores: Mapping[str, RunStore]) -> list[Point]:
    """The candidates of a case as points, each on the photographs that it and the reference have in common.

    Raises:
        InputError: if there are none.
    """
    records = {name: _records(store) for name, store in stores.items()}
    return [_point(case, name, found, records[REFERENCE]) for name, found in records.items()]


def _dataset(case: RunConfig, storage: Storage, split: str, count: int) -> str:
    """The URL of the manifest of a split's photographs, made when it is first needed."""
    name = f"{case.name}-{split}-{count}"
    if storage.exists(f"{name}.csv"):
        return storage.url(f"{name}.csv")
    return keep(spread(photographs(case)[split], count), storage, name, case.storage)


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
    """image_id -> record of the images that have all metrics."""
    rows = store.records().select(["image_id", "status", "passes", *PARETO_METRICS]).to_pylist()
    return {row["image_id"]: row for row in rows if row["status"] == "ok"}


def _point(case: str, candidate: str, found: Mapping[str, dict[str, Any]], reference: Mapping[str, dict[str, Any]]) -> Point:
    both = [image for image in found if image in reference]
    if not both:
        raise InputError(f"{case}: no photograph has a map of {candidate} and one of {REFERENCE}")
    return Point(
        case,
        candidate,
        len(both),
        fmean(found[image]["passes"] for image in both),
        {metric: fmean(found[image][metric] for image in both) for metric in PARETO_METRICS},
        {metric: interval([found[image][metric] - reference[image][metric] for image in both]) for metric in PARETO_METRICS},
    )
