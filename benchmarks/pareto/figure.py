"""Figure of `python -m benchmarks pareto`: passes against every metric, by case."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.pareto.benchmark import PARETO_METRICS, REFERENCE, Point
from hdm_core import METRICS
from pipeline.tables.aggregate import TITLES

# Points with the same number of passes are shifted by this factor, so that they do not overlap.
_OFFSET = 1.12


def pareto_figure(points: Sequence[Point]) -> bytes:
    """Draw a PNG with one row per case and one column per metric.

    The reference is a line, every other candidate a point with its 95% interval.
    """
    cases = list(dict.fromkeys(point.case for point in points))
    others = list(dict.fromkeys(point.candidate for point in points if point.candidate != REFERENCE))
    figure = Figure(figsize=(3.1 * len(PARETO_METRICS), 2.8 * len(cases) + 0.8), layout="constrained")
    axes = figure.subplots(len(cases), len(PARETO_METRICS), squeeze=False, sharex=True)
    for row, case in zip(axes, cases, strict=True):
        shown = {point.candidate: point for point in points if point.case == case}
        for axis, metric in zip(row, PARETO_METRICS, strict=True):
            base = shown[REFERENCE].means[metric]
            axis.axhline(base, color="grey", linestyle="--", label=REFERENCE)
            for number, name in enumerate(others):
                if name in shown:
                    point = shown[name]
                    gain, half = point.gains[metric]
                    label = f"{name} (n = {point.photographs})"
                    # The distance from the line is the difference on the photographs that both have.
                    x = point.passes * _OFFSET ** sum(shown[other].passes == point.passes for other in others[:number] if other in shown)
                    axis.errorbar(x, base + gain, yerr=half, fmt="o", color=f"C{number}", capsize=2, label=label)
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_title(f"{case}: {TITLES[metric]} {METRICS[metric].arrow}", fontsize=9)
            axis.tick_params(labelsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("passes per image", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
