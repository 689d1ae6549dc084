"""Runs to compare, written with random maps or explained in this process."""

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
ShardEdit = Callable[[Shard, Arrays, Records, Facts], None]


def stored_run(
    output: Path | str,
    name: str,
    change: ShardEdit | None = None,
    images: int = IMAGES,
    side: int = SIDE,
    first: int = 0,
    committed: int | None = None,
    changes: dict[str, Any] | None = None,
    **keys: Any,
) -> RunStore:
    """Write a run with random maps and records, two images per shard.

    Args:
        change: called with the arrays, records and image facts of each shard, to change them in place.
        first: number of the first image, so that runs may have different images.
        committed: number of finished shards; None for all.
    """
    plan = renumbered(plan_of(configuration(changes, name=name, output=str(output), **keys), images, side), first)
    store = RunStore.from_config(plan.config)
    store.create(plan)
    for shard in plan.shards[:committed]:
        arrays, records, facts = results(plan, shard)
        for row, fact in enumerate(facts, shard.start):
            fact["sha256"] = f"{row + first:064d}"
        for array in arrays.values():  # an image has the same map in every row
            for row in range(len(shard)):
                noise = np.random.default_rng(shard.start + row + first)
                array[row] = noise.random(array[row].shape)
        if change:
            change(shard, arrays, records, facts)
        store.write_shard(shard, arrays, records, facts, plan.config)
    return store


def edit_rows(rows: dict[int, dict[str, Any]], facts: dict[int, dict[str, Any]] | None = None) -> ShardEdit:
    """Return an edit of the records and image facts of the given rows."""

    def edit(shard: Shard, arrays: Arrays, records: Records, image_facts: Facts) -> None:
        records[:] = [with_changes(record, rows.get(record.row, {})) for record in records]
        for fact in image_facts:
            fact |= (facts or {}).get(fact["row"], {})

    return edit


def renumbered(plan: Plan, first: int) -> Plan:
    """Return the plan with its images numbered from `first`."""
    samples = [replace(sample, image_id=f"{row}.png", path=f"photographs/{row}.png") for row, sample in enumerate(plan.samples, first)]
    return replace(plan, samples=samples)


def explain_run_locally(classifier: Classifier, config: RunConfig) -> RunStore:
    """Explain and write a run in this process, as a worker does."""
    samples = list_samples(config.dataset, config.storage)
    size = config.compute.shard_size
    shards = [Shard(index, start, min(start + size, len(samples))) for index, start in enumerate(range(0, len(samples), size))]
    store = RunStore.from_config(config)
    size = preprocess_of(classifier).size
    store.create(Plan(config, samples, shards, size, classifier.weights_digest(), dict.fromkeys(config.methods, 1)))
    for shard in shards:
        result = explain_shard(classifier, config, shard, samples[shard.start : shard.stop])
        store.write_shard(shard, result.arrays, result.records, result.image_facts, config)
    return store
