"""Runs to compare: laid on storage by hand, with changes, or explained by a network in this process; no cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hdm_core import Classifier
from pipeline.classifiers.load import preprocess_of
from pipeline.config.schema import RunConfig
from pipeline.datasets import list_samples
from pipeline.explain.shard import explain_shard
from pipeline.plan import Plan, Shard
from pipeline.runs import RunStore
from pipeline.runs.records import Record
from tests.support.plans import configuration, plan_of, results, with_changes

IMAGES, SIDE = 6, 12

Arrays = dict[str, np.ndarray]
Records = list[Record]
Facts = list[dict[str, Any]]
Change = Callable[[Shard, Arrays, Records, Facts], None]


def laid(
    output: Path | str,
    name: str,
    change: Change | None = None,
    images: int = IMAGES,
    side: int = SIDE,
    first: int = 0,
    committed: int | None = None,
    changes: dict[str, Any] | None = None,
    **keys: Any,
) -> RunStore:
    """A run with made-up maps and records in shards of two.

    Args:
        change: is given each shard's arrays, records and facts, to change.
        first: the number of its first image, so that runs may hold other images.
        committed: how many of its shards are done.
    """
    plan = moved(plan_of(configuration(changes, name=name, output=str(output), **keys), images, side), first)
    store = RunStore.from_config(plan.config)
    store.create(plan)
    for shard in plan.shards[:committed]:
        arrays, records, facts = results(plan, shard)
        for row, fact in enumerate(facts, shard.start):
            fact["sha256"] = f"{row + first:064d}"
        for array in arrays.values():  # an image has the same map wherever it stands
            for row in range(len(shard)):
                noise = np.random.default_rng(shard.start + row + first)
                array[row] = noise.random(array[row].shape)
        if change:
            change(shard, arrays, records, facts)
        store.write_shard(shard, arrays, records, facts, plan.config)
    return store


def altered(rows: dict[int, dict[str, Any]], facts: dict[int, dict[str, Any]] | None = None) -> Change:
    """Changes the records, and what reading told, of some rows."""

    def change(shard: Shard, arrays: Arrays, records: Records, seen: Facts) -> None:
        records[:] = [with_changes(record, rows.get(record.row, {})) for record in records]
        for fact in seen:
            fact |= (facts or {}).get(fact["row"], {})

    return change


def moved(plan: Plan, first: int) -> Plan:
    """The plan with its images numbered from `first`."""
    samples = [replace(sample, image_id=f"{row}.png", path=f"photographs/{row}.png") for row, sample in enumerate(plan.samples, first)]
    return replace(plan, samples=samples)


def run_of(classifier: Classifier, config: RunConfig) -> RunStore:
    """A run as a worker does it."""
    samples = list_samples(config.dataset, config.storage)
    size = config.compute.shard_size
    shards = [Shard(index, start, min(start + size, len(samples))) for index, start in enumerate(range(0, len(samples), size))]
    store = RunStore.from_config(config)
    side = preprocess_of(classifier).crop
    store.create(Plan(config, samples, shards, side, classifier.weights_digest(), dict.fromkeys(config.methods, 1)))
    for shard in shards:
        result = explain_shard(classifier, config, shard, samples[shard.start : shard.stop])
        store.write_shard(shard, result.arrays, result.records, result.image_facts, config)
    return store
