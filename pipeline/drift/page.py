"""HTML page of a comparison: report/drift.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from hdm_core import METRICS, method_title
from pipeline.drift.compare import Drift
from pipeline.drift.pictures import DriftEntry
from pipeline.drift.summary import Statistic
from pipeline.report.heatmap import legend
from pipeline.report.summary import DEFINITIONS
from pipeline.report.templates import render
from pipeline.tables.aggregate import TITLES

_MAX_CLASSES = 20  # classes that the page lists for each method

# Columns of the tables beside the metrics: title, definition.
COLUMNS = {
    "flips": ("flips", "share of the images whose explained class changed"),
    "probability": ("probability", "change of the probability of the explained class, after minus before"),
    "drift": ("drift", "change of the map, from 0 (the same) to 1: the mean of 1 - overlap and (1 - Spearman) / 2"),
    "spearman": ("Spearman", "rank correlation of all pixels of both maps; 1: the same order"),
    "ssim": ("SSIM", "structural similarity of both maps (Wang et al. 2004); 1: the same"),
    "overlap": ("overlap", "intersection over union of the most salient 20% of the pixels of both maps; chance alone gives 0.11"),
}


def render_page(drift: Drift, drifted: Sequence[DriftEntry], flipped: Sequence[DriftEntry], exceeded: Sequence[str] | None) -> bytes:
    """Render the page as HTML.

    Args:
        drifted: entries of the images whose maps drifted most.
        flipped: entries of further images whose explained class changed.
        exceeded: one line for each limit that is exceeded; None if no limits were set.
    """
    statistics = {(statistic.method, statistic.class_name, statistic.quantity): statistic for statistic in drift.statistics}
    methods = drift.methods
    return render(
        "drift.html",
        before=_run(drift.before.metadata(), drift.before.url),
        after=_run(drift.after.metadata(), drift.after.url),
        images=drift.images,
        key_findings=_key_findings(drift, statistics),
        exceeded=exceeded,
        differences=drift.differences,
        columns=COLUMNS,
        titles=TITLES,
        definitions=DEFINITIONS,
        arrows={name: metric.arrow for name, metric in METRICS.items()},
        metrics=[metric for metric in METRICS if any(statistics[method, None, metric].estimate.n for method in methods)],
        less={name: metric.lower_is_better for name, metric in METRICS.items()},
        methods=[
            {
                "id": method,
                "title": method_title(method),
                "all": {quantity: statistics[method, None, quantity].estimate for quantity in (*COLUMNS, *METRICS)},
                "statuses": _statuses(drift, method),
                **_classes(drift, method, statistics),
            }
            for method in methods
        ],
        drifted=drifted,
        flipped=flipped,
        flip_count=_flip_count(drift),
        legend=legend(),
        has_report=drift.after.storage.exists("report/index.html"),
    )


def _run(info: Mapping[str, Any], url: str) -> dict[str, str]:
    return {"name": info["name"], "url": url, "weights": info["model_fingerprint"][:12], "configuration": info["config_hash"][:12]}


def _flip_count(drift: Drift) -> int:
    """Count the images whose explained class changed."""
    # All methods of a run explain the same class, so the rows of the first method suffice.
    return int(pc.sum(drift.table["flipped"].take(np.arange(0, len(drift.table), len(drift.methods)))).as_py() or 0)


def _statuses(drift: Drift, method: str) -> dict[str, int]:
    """Count the maps that could not be compared, by status."""
    statuses: Counter[str] = Counter(drift.table.filter(pc.equal(drift.table["method"], method))["status"].to_pylist())
    return {status: count for status, count in statuses.items() if status != "ok"}


def _classes(drift: Drift, method: str, statistics: Mapping[Any, Statistic]) -> dict[str, Any]:
    """Return the rows of the classes, largest drift first, and their drift scale."""
    names = _class_names(drift, method)
    rows: list[dict[str, Any]] = [
        {"name": name, **{quantity: statistics[method, name, quantity].estimate for quantity in (*COLUMNS, *METRICS)}} for name in names
    ]
    ends = [row["drift"].high for row in rows if row["drift"].high is not None]
    return {"classes": rows[:_MAX_CLASSES], "class_count": len(rows), "scale": max([*ends, 0.01])}


def _class_names(drift: Drift, method: str) -> list[str]:
    names = (statistic.class_name for statistic in drift.statistics if statistic.method == method)
    return list(dict.fromkeys(name for name in names if name is not None))


def _key_findings(drift: Drift, statistics: Mapping[Any, Statistic]) -> list[str]:
    """Summarise the comparison in one sentence per finding."""
    flips, images = _flip_count(drift), drift.images.same
    sentences = [f"The explained class changed for {flips:,} of {images:,} images ({flips / images:.1%})."]
    for method in drift.methods:
        overall = statistics[method, None, "drift"].estimate
        names = _class_names(drift, method)
        if overall.mean is None:
            sentences.append(f"No map of {method_title(method)} could be compared.")
            continue
        text = f"{method_title(method)}'s maps drifted by {overall.mean:.2f}"
        if len(names) > 1 and (top := statistics[method, names[0], "drift"].estimate).mean is not None:
            text += f", those of the class {names[0]} most, by {top.mean:.2f}"
        sentences.append(f"{text}.")
    return sentences
