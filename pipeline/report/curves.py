"""Figure 6 of the paper: every method's mean deletion and insertion curve."""

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

_OURS = {"hdm": "#b3261e", "dm": "#e07b00"}  # thick and warm; every other method is thin
_OTHERS = [f"C{number}" for number in (0, 2, 4, 5, 6, 7, 8, 9)]  # without the warm ones
_LINES = ("-", "--", ":")  # another for every round of the colours


@dataclass
class Curves:
    """Sums of a method's curves, (points,) each, and of how many images."""

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    images: int

    def __add__(self, other: Curves) -> Curves:
        return Curves(self.deletion + other.deletion, self.insertion + other.insertion, self.images + other.images)

    @property
    def means(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean deletion and insertion curve."""
        return self.deletion / self.images, self.insertion / self.images


def collect_curves(store: RunStore) -> dict[str, Curves]:
    """Every method's curves over the committed shards, in the registry's order; empty if the run was made before they were kept.

    One part is held at a time, so that the run may have any size.
    """
    found: dict[str, Curves] = {}
    for part in map(top_rank, store.curves()):
        for method in pc.unique(part["method"]).to_pylist():
            rows = part.filter(pc.equal(part["method"], method))
            both = [np.stack(rows[name].to_numpy()).astype(np.float64) for name in ("deletion", "insertion")]
            good = np.isfinite(both).all(axis=(0, 2))  # a network may answer NaN; the tables leave such an image out, too
            if good.any():
                here = Curves(both[0][good].sum(0), both[1][good].sum(0), int(good.sum()))
                found[method] = found[method] + here if method in found else here
    return {method: found[method] for method in METHODS.sort(found)}


def draw_curves(curves: Mapping[str, Curves]) -> bytes:
    """A PNG: deletion on the left, insertion on the right, a line a method, with the area under it."""
    figure = Figure(figsize=(10, 4.4 + 0.22 * len(curves) / 3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    others = [method for method in curves if method not in _OURS]
    for method in reversed(list(curves)):  # HDM is drawn last, on top of all others
        number = others.index(method) if method in others else 0
        colour = _OURS.get(method, _OTHERS[number % len(_OTHERS)])
        for axes, curve in zip((left, right), curves[method].means, strict=True):
            axes.plot(
                np.linspace(0, 100, len(curve)),
                curve,
                color=colour,
                linewidth=2.4 if method in _OURS else 1.2,
                linestyle="-" if method in _OURS else _LINES[number // len(_OTHERS) % len(_LINES)],
                label=method_title(method),
            )
    _label(left, "Deletion ↓", "pixels hidden, the most salient first (%)")
    _label(right, "Insertion ↑", "pixels shown, the most salient first (%)")
    left.set_ylabel("probability of the class, mean")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=min(5, len(labels)), fontsize=9, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def describe_curves(curves: Mapping[str, Curves]) -> str:
    """The figure in words, for those who cannot see it."""
    areas = [(method_title(method), *(np.trapezoid(mean) / (len(mean) - 1) for mean in curves[method].means)) for method in curves]
    return "Mean deletion and insertion curves. Areas under them: " + "; ".join(
        f"{title} {deletion:.3f} and {insertion:.3f}" for title, deletion, insertion in areas
    )


def _label(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(below)
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.grid(color="#e2e6eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
