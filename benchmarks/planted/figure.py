"""What `python -m benchmarks truth` found, for people: a table, and some pictures with their maps."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.figure import Figure
from PIL import Image
from rich.table import Table
from torch import Tensor

from benchmarks.planted.benchmark import CHANCE, Interval, PlantedData, PlantedResult
from benchmarks.planted.images import KINDS, Planted
from hdm_core import METHODS
from hdm_core.heatmap import overlay

# Of those that were measured: from every family one, and the two of the paper.
COLUMNS = ("hdm", "mask", "rise", "grad_cam", "layer_cam", "integrated_gradients", "gradient")
SUFFIXES = (".png", ".jpg")


def truth_table(result: PlantedResult) -> Table:
    """A row a method: mean ± half of the 95% interval."""
    head = ("energy ↑", "pointing ↑", "both, redundant ↑", "both, joint ↑", "randomised ↓")
    table = Table("method", "passes", "ms", *head, "flat", box=None)
    for row in result.rows:
        title = row.method if row.method == CHANCE else METHODS[row.method].title
        scores = map(_text, (row.energy, row.pointing, row.redundant, row.joint, row.randomised))
        table.add_row(title, f"{row.passes:,}", f"{row.seconds * 1e3:.0f}", *scores, str(row.flat))
    return table


def truth_lines(result: PlantedResult) -> list[str]:
    """What the table cannot say."""
    changed = [f"{row.method} {name}={value}" for row in result.rows for name, value in row.changed.items()]
    return [
        f"{result.images} pictures of each of three kinds, seed {result.seed}; mean ± half of the 95% interval; ms: of one picture",
        f"network: {result.accuracy:.1%} right, {result.obeyed:.1%} also without patches; trained in {result.training_seconds:.0f} s",
        f"evidence is {result.area:.1%} of the pixels: the energy and pointing of a flat map; chance: maps of random blobs",
        f"defaults but for {', '.join(changed) or 'nothing'}",
    ]


def truth_figure(made: PlantedData, maps: Mapping[str, Tensor], suffix: str) -> bytes:
    """A picture of each kind, two of the last, with their evidence outlined, and some methods' maps of them.

    Args:
        maps: method -> (N, 64, 64) in [0, 1].
        suffix: of the picture's file, one of SUFFIXES.
    """
    columns = [name for name in COLUMNS if name in maps]
    chosen = [*(made.kinds.index(kind) for kind in KINDS), len(made.kinds) - 1]
    figure = Figure(figsize=(1.2 * (1 + len(columns)), 1.25 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), 1 + len(columns), squeeze=False)
    for row, place in zip(axes, chosen, strict=True):
        view = _view(made.planted, place)
        for axis, name in zip(row, [None, *columns], strict=True):
            axis.imshow(view if name is None else overlay(view, maps[name][place].numpy()))
            for region in made.planted.regions[place]:
                if region.any():
                    axis.contour(region.numpy(), levels=[0.5], colors="white", linewidths=0.8)
            axis.set_xticks([])
            axis.set_yticks([])
            if place == chosen[0]:
                axis.set_title("evidence" if name is None else METHODS[name].title, fontsize=7)
        row[0].set_ylabel(made.kinds[place], fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix[1:], dpi=100)
    return buffer.getvalue()


def _view(planted: Planted, place: int) -> Image.Image:
    """A picture as colours, its range cut to what a screen shows."""
    pixels = (planted.images[place].permute(1, 2, 0) / 3 + 0.5).clamp(0, 1)
    return Image.fromarray((pixels * 255).byte().numpy())


def _text(score: Interval | None) -> str:
    return "-" if score is None else f"{score[0]:.3f} ± {score[1]:.3f}"
