"""Write drift.parquet and report/drift.html with its images."""

from __future__ import annotations

import json
from dataclasses import asdict

import pyarrow as pa

from pipeline.drift.compare import Drift
from pipeline.drift.page import render_page
from pipeline.drift.pictures import FOLDER, draw_entries
from pipeline.drift.schema import DRIFT
from pipeline.drift.summary import rank_by_drift, rank_flipped
from pipeline.drift.thresholds import DriftLimits, exceeded
from pipeline.report.page import link_drift
from pipeline.runs import RunStore
from pipeline.runs.records import to_parquet
from pipeline.runs.requested import never_measured
from pipeline.storage.objects import Storage

NAME, PAGE = "drift.parquet", "report/drift.html"

_MAX_FLIPPED = 6  # images that the page shows because their explained class changed


def write_drift(after: RunStore, drift: Drift, limits: DriftLimits | None = None, out: Storage | None = None, shown: int = 12) -> str:
    """Write drift.parquet and report/drift.html, and return the page's URL.

    Both go into the run after and replace those of an earlier comparison. Otherwise only the run's report page changes, where a link
    is added if there is such a page: the commits, and so `hdm verify` and a resumed run, are not affected.

    Args:
        limits: limits to check; the page lists those that are exceeded.
        out: storage for both files instead of the run, such as a folder that holds several comparisons.
        shown: number of images with the largest drift that the page shows.
    """
    target = out or after.storage
    for name in [PAGE, *(f"report/{FOLDER}/{image}" for image in target.names(f"report/{FOLDER}"))]:
        target.remove(name)  # so that a page never shows the images of another comparison
    description = {"before": drift.before.url, "after": after.url, "images": asdict(drift.images), "differences": drift.differences}
    schema = DRIFT.with_metadata({**DRIFT.metadata, b"hdm.drift": json.dumps(description, ensure_ascii=False).encode()})
    # Changes of metrics on request are columns only where both runs have measured one.
    absent = never_measured(drift.table, "_change")
    columns = pa.schema([column for column in schema if column.name not in absent], metadata=schema.metadata)
    target.write(NAME, to_parquet(drift.table.select(columns.names), columns))
    drifted = rank_by_drift(drift.table)[:shown]
    flipped = [image for image in rank_flipped(drift.table) if image not in drifted][:_MAX_FLIPPED]
    entries = draw_entries(drift, [*drifted, *flipped], target)
    violations = None if limits is None else exceeded(drift, limits)
    target.write(PAGE, render_page(drift, entries[: len(drifted)], entries[len(drifted) :], violations))
    if out is None:
        link_drift(after)
    return target.url(PAGE)
