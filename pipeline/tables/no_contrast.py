"""Images without contrast: those whose baseline keeps the class."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hdm_core import METHODS, method_title
from pipeline.runs.records import top_rank

COLUMNS = ("rank", "method", "target_name", "no_contrast", "metrics_no_contrast")  # of the records, that the counts are made of

_LEGEND = (
    "Without contrast: the baseline, on which nothing of the image is left, is answered with the class as well. A map of what is removed "
    "does not explain the answer there, and deletion, insertion and drop say little."
)


@dataclass(frozen=True)
class ClassCount:
    """Images of one method that explain one class.

    Attributes:
        method: its id.
        class_name: the class that the maps explain.
        images: images with a known contrast of method or metrics.
        no_contrast: of these, the images whose class the method's baseline keeps; None for a method without a baseline.
        metrics_no_contrast: the same for the baseline of the metrics.
    """

    method: str
    class_name: str
    images: int
    no_contrast: int | None
    metrics_no_contrast: int


def count_no_contrast(records: pa.Table) -> list[ClassCount]:
    """Count the images without contrast by method and class, of rank 0.

    Classes without such an image are left out, and so are runs that did not measure it.
    """
    flags = top_rank(records).select(COLUMNS[1:])
    known = flags.filter(pc.or_(pc.is_valid(flags["no_contrast"]), pc.is_valid(flags["metrics_no_contrast"])))
    known = known.set_column(1, "target_name", pc.fill_null(known["target_name"], ""))
    counted = known.group_by(["method", "target_name"]).aggregate(
        [([], "count_all"), ("no_contrast", "sum"), ("metrics_no_contrast", "sum"), ("no_contrast", "count")]
    )
    images, kept, metrics_kept, with_baseline = {}, {}, {}, set()
    for row in counted.to_pylist():
        key = row["method"], row["target_name"]
        images[key] = row["count_all"]
        kept[key], metrics_kept[key] = row["no_contrast_sum"] or 0, row["metrics_no_contrast_sum"] or 0
        if row["no_contrast_count"]:
            with_baseline.add(row["method"])
    order = METHODS.sort(method for method, _ in images)
    return [
        ClassCount(method, name, images[method, name], kept[method, name] if method in with_baseline else None, metrics_kept[method, name])
        for method in order
        for name in sorted(name for each, name in images if each == method)
        if kept[method, name] or metrics_kept[method, name]
    ]


def layout_no_contrast(counts: list[ClassCount]) -> RenderableType:
    """Lay out the counts for a terminal, with what they mean."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("Without contrast", "class", "images", "baseline of the map", "baseline of the metrics"):
        table.add_column(Text(head))
    for count in counts:
        own = "-" if count.no_contrast is None else str(count.no_contrast)
        name = "".join(letter if letter.isprintable() else " " for letter in count.class_name)
        cells = method_title(count.method), name, str(count.images), own, str(count.metrics_no_contrast)
        table.add_row(*map(Text, cells))
    return Group(Text(""), table, Text(_LEGEND, "dim"))
