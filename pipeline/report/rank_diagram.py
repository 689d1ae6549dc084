"""Critical-difference diagrams: average ranks, and methods not told apart."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hdm_core import METRICS, method_title
from pipeline.tables.ranks import Ranking

_COLUMNS = 2
_LINE = 0.21  # inches per label, or per bar
_INK, _SOFT, _BAR = "#1b2430", "#8a95a1", "#b3261e"


def draw_ranks(rankings: Sequence[Ranking]) -> bytes:
    """Draw a PNG with one diagram per metric.

    The axis holds average ranks, the best on the left. A method's label hangs from its rank, the better half on the left and the other on
    the right; thick bars join the methods of a group, and a ruler above the axis has the length of the critical difference
    (Demsar 2006, Figure 1).
    """
    rows = math.ceil(len(rankings) / _COLUMNS)
    lines = max(math.ceil(len(each.ranks) / 2) + 0.75 * len(each.groups) for each in rankings)
    figure = Figure(figsize=(12, rows * (1.15 + _LINE * lines)), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for each, panel in zip(rankings, axes, strict=False):
        _draw(panel, each, lines)
    for panel in axes[len(rankings) :]:
        panel.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def describe_ranks(rankings: Sequence[Ranking]) -> str:
    """Describe the diagrams in words, for their alternative text."""
    sentences = []
    for each in rankings:
        ranks = ", ".join(f"{method_title(method)} {rank:.2f}" for method, rank in each.ranks.items())
        groups = "; ".join(" and ".join(map(method_title, group)) for group in each.groups)
        sentences.append(f"{_title(each)}: {ranks}. Not told apart: {groups or 'none'}.")
    return "Average ranks of the methods. " + " ".join(sentences)


def _title(each: Ranking) -> str:
    return f"{METRICS[each.metric].title} {METRICS[each.metric].arrow}"


def _draw(axes: Axes, each: Ranking, lines: float) -> None:
    """Draw one diagram; its unit of height is one line of text."""
    count = len(each.ranks)
    margin = 0.45 * (count - 1)  # for the labels
    axes.set_xlim(1 - margin, count + margin)
    axes.set_ylim(-lines - 0.6, 3.2)
    axes.set_axis_off()
    axes.set_title(f"{_title(each)}   n = {each.n}, {_p(each.p)}", fontsize=10, loc="left", color=_INK)
    axes.plot([1, count], [0, 0], color=_INK, linewidth=1)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, 0.25], color=_INK, linewidth=1)
        axes.text(tick, 0.35, str(tick), ha="center", va="bottom", fontsize=8, color=_SOFT)
    # A critical difference longer than the axis, of very few images, ends with it.
    ruler = min(each.critical_difference, count - 1)
    axes.plot([1, 1 + ruler], [1.9, 1.9], color=_INK, linewidth=1.5, marker="|", markersize=7)
    note = f"CD = {each.critical_difference:.2f}" + (", more than the axis" if each.critical_difference > count - 1 else "")
    axes.text(1, 2.15, note, fontsize=8, color=_INK, va="bottom")
    for number, group in enumerate(each.groups):
        height = -0.55 - 0.75 * number
        ends = [each.ranks[group[0]] - 0.03, each.ranks[group[-1]] + 0.03]
        axes.plot(ends, [height, height], color=_BAR, linewidth=3.5, solid_capstyle="butt")
    left = math.ceil(count / 2)
    for index, (method, rank) in enumerate(each.ranks.items()):
        on_left = index < left
        line = -len(each.groups) * 0.75 - 0.9 - (index if on_left else count - 1 - index)
        end = 1 - 0.04 * (count - 1) if on_left else count + 0.04 * (count - 1)
        axes.plot([rank, rank, end], [0, line, line], color=_SOFT, linewidth=0.8)
        text = f"{method_title(method)}  {rank:.2f}" if on_left else f"{rank:.2f}  {method_title(method)}"
        # Not as mathematics, which a dollar sign in a plugin's title would begin.
        axes.text(end, line, f" {text} ", ha="right" if on_left else "left", va="center", fontsize=8.5, color=_INK, parse_math=False)


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.0005 else f"p = {p:.3f}"
