"""A comparison on storage: drift.parquet, and the page report/drift.html with its pictures."""

from __future__ import annotations

import json
from dataclasses import asdict

from pipeline.drift.compare import Drift
from pipeline.drift.page import page
from pipeline.drift.pictures import FOLDER, draw
from pipeline.drift.schema import DRIFT
from pipeline.drift.summary import flipped, worst
from pipeline.drift.thresholds import DriftLimits, exceeded
from pipeline.report.page import link_drift
from pipeline.runs import RunStore
from pipeline.runs.records import to_parquet
from pipeline.storage.objects import Storage

NAME, PAGE = "drift.parquet", "report/drift.html"

_FLIPPED = 6  # images that the page shows because they are answered with another class


def write_drift(after: RunStore, drift: Drift, limits: DriftLimits | None = None, out: Storage | None = None, shown: int = 12) -> str:
    """Writes drift.parquet and report/drift.html into the run after, and returns the page's URL.

    They take the place of an earlier comparison's. Nothing else of the run is touched but the link on its page, if it has one: what is
    committed, and so `hdm verify` and a resumed run, does not know of them.

    Args:
        limits: the page says which of them are exceeded.
        out: another place for both, such as a folder that keeps several comparisons.
        shown: how many of the images that moved most the page shows.
    """
    place = out or after.storage
    for name in [PAGE, *(f"report/{FOLDER}/{picture}" for picture in place.names(f"report/{FOLDER}"))]:
        place.remove(name)  # a page never shows the pictures of another comparison
    about = {"before": drift.before.url, "after": after.url, "images": asdict(drift.images), "differences": drift.differences}
    schema = DRIFT.with_metadata({**DRIFT.metadata, b"hdm.drift": json.dumps(about, ensure_ascii=False).encode()})
    place.write(NAME, to_parquet(drift.table, schema))
    moved = worst(drift.table)[:shown]
    others = [image for image in flipped(drift.table) if image not in moved][:_FLIPPED]
    entries = draw(drift, [*moved, *others], place)
    broken = None if limits is None else exceeded(drift, limits)
    place.write(PAGE, page(drift, entries[: len(moved)], entries[len(moved) :], broken))
    if out is None:
        link_drift(after)
    return place.url(PAGE)
