"""The page of a comparison: report/drift.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from hdm_core import METRICS, method_title
from pipeline.drift.compare import Drift
from pipeline.drift.summary import Statistic
from pipeline.report.heatmap import legend
from pipeline.report.summary import DEFINITIONS
from pipeline.report.templates import render
from pipeline.tables.aggregate import TITLES

_CLASSES = 20  # of a method, that the page lists

# What the tables show beside the metrics: title, definition.
HEADS = {
    "flips": ("flips", "share of the images that are answered with another class"),
    "probability": ("probability", "change of the explained class's probability, after minus before"),
    "drift": ("drift", "how far the map moved, from 0, the same, to 1: the mean of 1 - overlap and (1 - Spearman) / 2"),
    "spearman": ("Spearman", "correlation of the ranks of all pixels of both maps; 1: the same order"),
    "ssim": ("SSIM", "structural similarity of both maps (Wang et al. 2004); 1: the same"),
    "overlap": ("overlap", "of the most salient 20% of the pixels, those in both maps over those in either; chance alone gives 0.11"),
}


def page(drift: Drift, moved: Sequence[Any], flipped: Sequence[Any], broken: Sequence[str] | None) -> bytes:
    """The page's HTML.

    Args:
        moved, flipped: the entries `draw` gives, of the images that moved most and of some that flipped.
        broken: the lines of the limits that are exceeded; None where no limits were set.
    """
    statistics = {(found.method, found.class_name, found.quantity): found for found in drift.statistics}
    methods = drift.methods
    return render(
        "drift.html",
        before=_run(drift.before.metadata(), drift.before.url),
        after=_run(drift.after.metadata(), drift.after.url),
        images=drift.images,
        glance=_glance(drift, statistics),
        broken=broken,
        differences=drift.differences,
        heads=HEADS,
        titles=TITLES,
        definitions=DEFINITIONS,
        arrows={name: metric.arrow for name, metric in METRICS.items()},
        metrics=[metric for metric in METRICS if any(statistics[method, None, metric].estimate.n for method in methods)],
        less={name: metric.lower_is_better for name, metric in METRICS.items()},
        methods=[
            {
                "id": method,
                "title": method_title(method),
                "all": {quantity: statistics[method, None, quantity].estimate for quantity in (*HEADS, *METRICS)},
                "statuses": _statuses(drift, method),
                **_classes(drift, method, statistics),
            }
            for method in methods
        ],
        moved=moved,
        flipped=flipped,
        flips=_flips(drift),
        legend=legend(),
        indexed=drift.after.storage.exists("report/index.html"),
    )


def _run(info: Mapping[str, Any], url: str) -> dict[str, str]:
    return {"name": info["name"], "url": url, "weights": info["model_fingerprint"][:12], "configuration": info["config_hash"][:12]}


def _flips(drift: Drift) -> int:
    """Images that are answered with another class; every method of a run explains the same one."""
    return int(pc.sum(drift.table["flipped"].take(np.arange(0, len(drift.table), len(drift.methods)))).as_py() or 0)


def _statuses(drift: Drift, method: str) -> dict[str, int]:
    """How many maps could not be compared, and why."""
    statuses: Counter[str] = Counter(drift.table.filter(pc.equal(drift.table["method"], method))["status"].to_pylist())
    return {status: count for status, count in statuses.items() if status != "ok"}


def _classes(drift: Drift, method: str, statistics: Mapping[Any, Statistic]) -> dict[str, Any]:
    """The classes' rows, those that drifted most first, and the end of the scale on which their drift is drawn."""
    names = list(_named(found.class_name for found in drift.statistics if found.method == method))
    rows: list[dict[str, Any]] = [
        {"name": name, **{quantity: statistics[method, name, quantity].estimate for quantity in (*HEADS, *METRICS)}} for name in names
    ]
    ends = [row["drift"].high for row in rows if row["drift"].high is not None]
    return {"classes": rows[:_CLASSES], "class_count": len(rows), "scale": max([*ends, 0.01])}


def _named(names: Iterable[str | None]) -> dict[str, None]:
    return dict.fromkeys(name for name in names if name is not None)


def _glance(drift: Drift, statistics: Mapping[Any, Statistic]) -> list[str]:
    """What changed, in sentences."""
    flips, images = _flips(drift), drift.images.same
    sentences = [f"{flips:,} of {images:,} images ({flips / images:.1%}) are answered with another class."]
    for method in drift.methods:
        every = statistics[method, None, "drift"].estimate
        names = list(_named(found.class_name for found in drift.statistics if found.method == method))
        if every.mean is None:
            sentences.append(f"No map of {method_title(method)} could be compared.")
            continue
        text = f"{method_title(method)}'s maps drifted by {every.mean:.2f}"
        if len(names) > 1 and (top := statistics[method, names[0], "drift"].estimate).mean is not None:
            text += f", those of the class {names[0]} most, by {top.mean:.2f}"
        sentences.append(f"{text}.")
    return sentences
