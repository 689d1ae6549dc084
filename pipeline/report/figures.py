"""Figures 4 to 7 of the paper, drawn for one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.curves import collect_curves, describe_curves, draw_curves
from pipeline.report.gallery import GalleryEntry, Tile
from pipeline.report.grids import Grid, method_grid, stage_grid
from pipeline.report.ground_truth import draw_ground_truth
from pipeline.runs import RunStore

_PIECES = (
    " Pieces of evidence are disjoint sets of pixels, found one after another, each of which suffices for the class when it is shown "
    "alone; their numbers are in the gallery."
)


@dataclass(frozen=True)
class PageFigure:
    """Figure of the page.

    Attributes:
        number: number of the figure in the paper.
        content: a grid of gallery images, one image, or a sentence with the reason why there is none.
    """

    number: int
    title: str
    caption: str
    content: Grid | Tile | str


def draw_figures(store: RunStore, entries: Sequence[GalleryEntry]) -> list[PageFigure]:
    """Return the figures in the paper's order, and write the images they need.

    Args:
        entries: rows of the gallery; without any there are no figures.
    """
    if not entries:
        return []
    return [
        PageFigure(4, "Methods side by side", "Heatmaps of all methods for the same photographs.", method_grid(entries)),
        PageFigure(
            5,
            "HDM, stage by stage",
            "Each stage is a DM on the pixels that the previous stages left; HDM's map is the weighted mean of the stages."
            + (_PIECES if any(entry.pieces for entry in entries) else ""),
            stage_grid(entries),
        ),
        _curves_figure(store),
        PageFigure(
            7, "HDM and the ground truth", "HDM's map above the annotated region of the evidence.", draw_ground_truth(store, entries)
        ),
    ]


def _curves_figure(store: RunStore) -> PageFigure:
    curves = collect_curves(store)
    counts = sorted({sums.images for sums in curves.values()})
    images = f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "") if counts else "no"
    caption = (
        f"Mean probability of the class over {images} images, while the most salient pixels are removed, and while they are inserted. "
        "With a good map the left curve falls early and the right one rises early."
    )
    content: Tile | str = "This run has no curves: no image was measured, or the run was made before curves were stored."
    if curves:
        store.storage.write("report/figures/curves.png", draw_curves(curves))
        content = Tile("Curves", describe_curves(curves), "figures/curves.png")
    return PageFigure(6, "Deletion and insertion", caption, content)
