"""Figure 6 of the paper: mean deletion and insertion curves of each method."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hdm_core import METHODS, method_title
from pipeline.runs import RunStore
from pipeline.runs.records import top_rank

_HIGHLIGHTED = {"hdm": "#b3261e", "dm": "#e07b00"}  # thick lines in warm colours; all other methods are thin
_COLOURS = [f"C{number}" for number in (0, 2, 4, 5, 6, 7, 8, 9)]  # matplotlib's cycle without the warm colours
_LINE_STYLES = ("-", "--", ":")  # the next one each time the colours repeat


@dataclass
class CurveSums:
    """Sums of a method's curves, (points,) each, over `images` images."""

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    images: int

    def __add__(self, other: CurveSums) -> CurveSums:
        return CurveSums(self.deletion + other.deletion, self.insertion + other.insertion, self.images + other.images)

    @property
    def means(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean deletion and insertion curves."""
        return self.deletion / self.images, self.insertion / self.images


def collect_curves(store: RunStore) -> dict[str, CurveSums]:
    """Sum the curves of the committed shards by method, in the registry's order.

    One part file is in memory at a time, so that the run may have any size. Empty for runs made before curves were stored.
    """
    sums: dict[str, CurveSums] = {}
    for part in map(top_rank, store.curves()):
        for method in pc.unique(part["method"]).to_pylist():
            rows = part.filter(pc.equal(part["method"], method))
            curves = [np.stack(rows[name].to_numpy()).astype(np.float64) for name in ("deletion", "insertion")]
            finite = np.isfinite(curves).all(axis=(0, 2))  # a network may return NaN; the tables leave out such images, too
            if finite.any():
                of_part = CurveSums(curves[0][finite].sum(0), curves[1][finite].sum(0), int(finite.sum()))
                sums[method] = sums[method] + of_part if method in sums else of_part
    return {method: sums[method] for method in METHODS.sort(sums)}


def draw_curves(curves: Mapping[str, CurveSums]) -> bytes:
    """Draw a PNG: deletion on the left, insertion on the right, one line per method."""
    figure = Figure(figsize=(10, 4.4 + 0.22 * len(curves) / 3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    others = [method for method in curves if method not in _HIGHLIGHTED]
    for method in reversed(list(curves)):  # HDM is drawn last, on top
        number = others.index(method) if method in others else 0
        colour = _HIGHLIGHTED.get(method, _COLOURS[number % len(_COLOURS)])
        for axes, curve in zip((left, right), curves[method].means, strict=True):
            axes.plot(
                np.linspace(0, 100, len(curve)),
                curve,
                color=colour,
                linewidth=2.4 if method in _HIGHLIGHTED else 1.2,
                linestyle="-" if method in _HIGHLIGHTED else _LINE_STYLES[number // len(_COLOURS) % len(_LINE_STYLES)],
                label=method_title(method),
            )
    _label(left, "Deletion ↓", "pixels removed, most salient first (%)")
    _label(right, "Insertion ↑", "pixels inserted, most salient first (%)")
    left.set_ylabel("mean probability of the class")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=min(5, len(labels)), fontsize=9, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def describe_curves(curves: Mapping[str, CurveSums]) -> str:
    """Describe the figure in words, for its alternative text."""
    areas = [(method_title(method), *(np.trapezoid(mean) / (len(mean) - 1) for mean in curves[method].means)) for method in curves]
    return "Mean deletion and insertion curves. Areas under them: " + "; ".join(
        f"{title} {deletion:.3f} and {insertion:.3f}" for title, deletion, insertion in areas
    )


def _label(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.grid(color="#e2e6eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
