"""The figures of the paper that a page shows of its own run: 4, 5, 6 and 7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.curves import collect_curves, describe_curves, draw_curves
from pipeline.report.gallery import Entry, Tile
from pipeline.report.grids import Grid, comparison, stages
from pipeline.report.ground_truth import draw_regions
from pipeline.runs import RunStore


@dataclass(frozen=True)
class PageFigure:
    """A figure: a grid of the gallery's pictures, one picture, or a sentence that says why it is not there."""

    number: int
    title: str
    caption: str
    shown: Grid | Tile | str


def draw_figures(store: RunStore, entries: Sequence[Entry]) -> list[PageFigure]:
    """Writes the pictures that the gallery does not have, and returns the figures in the paper's order; none if no image is shown.

    Args:
        entries: the gallery's rows.
    """
    if not entries:
        return []
    return [
        PageFigure(4, "Methods side by side", "What every method finds in the same photographs.", comparison(entries)),
        PageFigure(
            5,
            "HDM, stage by stage",
            "Every stage is a DM that sees what the stages before it have left of the photograph; HDM's map is their weighted mean.",
            stages(entries),
        ),
        _curves(store),
        PageFigure(7, "HDM and the ground truth", "HDM's map above the region where the evidence is.", draw_regions(store, entries)),
    ]


def _curves(store: RunStore) -> PageFigure:
    curves = collect_curves(store)
    counts = sorted({sums.images for sums in curves.values()})
    images = f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "") if counts else "no"
    caption = (
        f"The class's probability, mean over {images} images, while a map's most salient pixels are hidden, and while only they are shown. "
        "A good map makes the left curve fall early and the right one rise early."
    )
    shown: Tile | str = "This run holds no curves: no image was measured, or it was made before curves were kept."
    if curves:
        store.storage.write("report/figures/curves.png", draw_curves(curves))
        shown = Tile("Curves", describe_curves(curves), "figures/curves.png")
    return PageFigure(6, "Deletion and insertion", caption, shown)
