"""Findings of an audit, and their Parquet schema."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

Kind = Literal["spatial", "background", "group", "weak"]
KINDS: tuple[Kind, ...] = ("spatial", "background", "group", "weak")

Box = tuple[int, int, int, int]

AUDIT = pa.schema(
    [
        ("class_name", pa.string()),
        ("kind", pa.string()),
        ("method", pa.string()),
        ("place", pa.string()),
        ("box", pa.list_(pa.int32(), 4)),  # left, top, right, bottom in pixels of the network's input
        ("confirmed", pa.bool_()),  # null: not tested
        ("effect", pa.float64()),
        ("interval", pa.list_(pa.float64(), 2)),
        ("removal", pa.float64()),
        ("insertion", pa.float64()),
        ("images", pa.int64()),
        ("p", pa.float64()),
        ("share", pa.float64()),
        ("text", pa.string()),
        ("reason", pa.string()),
        ("examples", pa.list_(pa.int64())),  # rows of images.parquet to open first
    ],
    metadata={"hdm.schema_version": "1"},
)


@dataclass(frozen=True)
class Finding:
    """A finding about one class.

    Attributes:
        place: such as "top-left corner"; None where there is no place.
        box: left, top, right, bottom in pixels of the network's input.
        confirmed: whether the causal test shows an effect; None if it was not made, see `reason`.
        effect: mean change of the class's probability in the causal test, beyond that of random places: the larger one of
            removing the place from images of the class and of inserting it into images of other classes.
        interval: ends of its 95% interval.
        removal, insertion: both mean changes.
        images: that the finding is about.
        p: of the suspicion, corrected; None where there is no test.
        share: of the class's images.
        text: one sentence.
        reason: why the causal test was left out.
        examples: rows of images to open first.
        rows: all images that the finding is about, the first to open first; not in the files of the audit.
        mistakes: the images are confident mistakes; not in the files of the audit.
        causal_p: of the causal test, before it is corrected over all tested places; not in the files of the audit.
    """

    class_name: str
    kind: Kind
    method: str
    images: int
    text: str
    place: str | None = None
    box: Box | None = None
    confirmed: bool | None = None
    effect: float | None = None
    interval: tuple[float, float] | None = None
    removal: float | None = None
    insertion: float | None = None
    p: float | None = None
    share: float | None = None
    reason: str | None = None
    examples: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    mistakes: bool = False
    causal_p: float | None = None

    @property
    def strength(self) -> tuple[int, float]:
        """Key that sorts findings, the strongest last."""
        rank = {True: 2, None: 1, False: 0}[self.confirmed]
        return rank, abs(self.effect) if self.effect is not None else self.share or 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON has it."""
        return {name: value for name, value in asdict(self).items() if name not in ("rows", "mistakes", "causal_p")}
