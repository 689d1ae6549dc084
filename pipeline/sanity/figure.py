"""Figure of cascading randomisation: similarity by stage."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from hdm_core import method_title
from hdm_core.sanity import CASCADING
from pipeline.sanity.row import Row


def draw_cascading(rows: Sequence[Row], limit: float | None) -> bytes | None:
    """Draw a PNG with a line per method: mean Spearman correlation and its interval.

    Args:
        limit: of the last stage, drawn as a dotted line; None for none.

    Returns:
        None if no method has such a curve.
    """
    curves: dict[str, list[Row]] = {}
    for row in rows:
        if row.test == CASCADING and row.value.mean is not None:
            curves.setdefault(row.method, []).append(row)
    if not curves:
        return None
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.add_subplot()
    longest: list[Row] = max(curves.values(), key=len)
    for number, (method, stages) in enumerate(curves.items()):
        places = [int(row.stage.split(" ", 1)[0]) for row in stages]
        means = [row.value.mean for row in stages if row.value.mean is not None]
        colour = f"C{number % 10}"
        axes.plot([0, *places], [1.0, *means], marker="o", color=colour, label=_plain(method_title(method)))
        bands = [
            (place, row.value.low, row.value.high)
            for place, row in zip(places, stages, strict=True)
            if row.value.low is not None and row.value.high is not None
        ]
        if bands:
            across, low, high = ([float(band[part]) for band in bands] for part in range(3))
            axes.fill_between(across, low, high, color=colour, alpha=0.12, linewidth=0)
    if limit is not None:
        axes.axhline(limit, color="grey", linestyle=":", label="limit of the last stage")
    ticks = [0, *(int(row.stage.split(" ", 1)[0]) for row in longest)]
    axes.set_xticks(ticks, ["trained", *(_plain(_short(row.stage)) for row in longest)], rotation=20, ha="right", fontsize=7)
    axes.set_ylim(-1.02, 1.05)
    axes.set_ylabel("Spearman with the original map")
    axes.set_xlabel("randomised from the logits down to this layer")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _short(stage: str) -> str:
    """Return the last layer of a stage."""
    return stage.rsplit(" ", 1)[-1]


def _plain(text: str) -> str:
    """Return a text of which matplotlib reads no formula."""
    return text.replace("$", r"\$")
