"""Table and figure of `python -m benchmarks truth`."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.figure import Figure
from PIL import Image
from rich.table import Table
from torch import Tensor

from benchmarks.planted.benchmark import CHANCE, Interval, PlantedData, PlantedResult
from benchmarks.planted.images import KINDS, PlantedImages
from hdm_core import METHODS
from hdm_core.heatmap import overlay

# Methods in the figure, where measured: HDM and at least one of every family.
COLUMNS = ("hdm", "mask", "rise", "grad_cam", "layer_cam", "integrated_gradients", "gradient")
SUFFIXES = (".png", ".jpg")


def truth_table(result: PlantedResult) -> Table:
    """Build a table with one row per method: mean ± half of the 95% interval."""
    head = ("energy ↑", "pointing ↑", "both, redundant ↑", "both, joint ↑", "randomised ↓")
    table = Table("method", "passes", "ms", *head, "flat", box=None)
    for row in result.rows:
        title = row.method if row.method == CHANCE else METHODS[row.method].title
        scores = map(_text, (row.energy, row.pointing, row.redundant, row.joint, row.randomised))
        table.add_row(title, f"{row.passes:,}", f"{row.seconds * 1e3:.0f}", *scores, str(row.flat))
    return table


def truth_lines(result: PlantedResult) -> list[str]:
    """Return the lines below the table: settings, network and chance."""
    changed = [f"{row.method} {name}={value}" for row in result.rows for name, value in row.changed.items()]
    return [
        f"{result.images} images of each of three kinds, seed {result.seed}; mean ± half of the 95% interval; ms: per image",
        f"network: {result.accuracy:.1%} correct, {result.obeyed:.1%} also without patches; trained in {result.training_seconds:.0f} s",
        f"evidence is {result.area:.1%} of the pixels: the energy and pointing of a flat map; chance: random maps",
        f"defaults except for {', '.join(changed) or 'nothing'}",
    ]


def truth_figure(data: PlantedData, maps: Mapping[str, Tensor], suffix: str) -> bytes:
    """Draw one image per kind, two of the last, with evidence outlined, and some maps.

    Args:
        maps: method -> (N, 64, 64) in [0, 1].
        suffix: file type of the figure, one of SUFFIXES.
    """
    columns = [name for name in COLUMNS if name in maps]
    selected = [*(data.kinds.index(kind) for kind in KINDS), len(data.kinds) - 1]
    figure = Figure(figsize=(1.2 * (1 + len(columns)), 1.25 * len(selected)), layout="constrained")
    axes = figure.subplots(len(selected), 1 + len(columns), squeeze=False)
    for row, index in zip(axes, selected, strict=True):
        image = _rgb(data.planted, index)
        for axis, name in zip(row, [None, *columns], strict=True):
            axis.imshow(image if name is None else overlay(image, maps[name][index].numpy()))
            for region in data.planted.regions[index]:
                if region.any():
                    axis.contour(region.numpy(), levels=[0.5], colors="white", linewidths=0.8)
            axis.set_xticks([])
            axis.set_yticks([])
            if index == selected[0]:
                axis.set_title("evidence" if name is None else METHODS[name].title, fontsize=7)
        row[0].set_ylabel(data.kinds[index], fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix[1:], dpi=100)
    return buffer.getvalue()


def _rgb(planted: PlantedImages, index: int) -> Image.Image:
    """Convert an image to RGB, its values clamped to the displayable range."""
    pixels = (planted.images[index].permute(1, 2, 0) / 3 + 0.5).clamp(0, 1)
    return Image.fromarray((pixels * 255).byte().numpy())


def _text(score: Interval | None) -> str:
    return "-" if score is None else f"{score[0]:.3f} ± {score[1]:.3f}"
