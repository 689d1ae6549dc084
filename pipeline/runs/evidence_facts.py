"""Numbers of a search for pieces of evidence, as columns of the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from hdm_core import Evidence

EVIDENCE_COLUMNS = (
    ("evidence_status", pa.string()),
    ("evidence_count", pa.int32()),
    ("evidence_area", pa.float32()),
    ("evidence_comprehensiveness", pa.float32()),
    ("evidence_sufficiency", pa.list_(pa.float32())),
    ("evidence_necessity", pa.list_(pa.float32())),
    ("evidence_passes", pa.int64()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFacts:
    """Numbers of one search.

    Attributes:
        evidence_status: end of the search, see `hdm_core.Evidence`.
        evidence_count: number of pieces.
        evidence_area: share of the pixels that belong to a piece.
        evidence_comprehensiveness: share of the score that is lost without all pieces; None without pieces.
        evidence_sufficiency: of each piece, the share of the score that it keeps alone.
        evidence_necessity: of each piece, the share of the score that is lost without it.
        evidence_passes: passes spent on the search, beside those on the map.
    """

    evidence_status: str
    evidence_count: int
    evidence_area: float
    evidence_comprehensiveness: float | None
    evidence_sufficiency: Sequence[float]
    evidence_necessity: Sequence[float]
    evidence_passes: int

    @classmethod
    def of(cls, evidence: Evidence, image: int) -> EvidenceFacts:
        """Return the numbers of one image of a result."""
        pieces = evidence.pieces[image]
        return cls(
            evidence_status=evidence.status[image],
            evidence_count=len(pieces),
            evidence_area=evidence.area(image),
            evidence_comprehensiveness=evidence.comprehensiveness[image] if pieces else None,
            evidence_sufficiency=[piece.sufficiency for piece in pieces],
            evidence_necessity=[piece.necessity for piece in pieces],
            evidence_passes=evidence.passes[image],
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> EvidenceFacts | None:
        """Return the numbers in a row of the records; None if it has none."""
        if row.get("evidence_status") is None:
            return None
        return cls(**{each.name: row[each.name] for each in fields(cls)})


def evidence_row(facts: EvidenceFacts | None) -> dict[str, Any]:
    """Return the columns by name; they are null where nothing was searched."""
    return dict.fromkeys(name for name, _ in EVIDENCE_COLUMNS) if facts is None else asdict(facts)
