"""Listing of a dataset: its samples, what was left out, and remarks for the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.datasets.sample import Sample, as_text
from pipeline.errors import printable

_EXAMPLES = 3  # per reason, in the line and in JSON
_MOST_EXAMPLES = 1000  # different examples that are counted per reason, to bound the memory


@dataclass
class ListingNotes:
    """Files that a listing left out, by reason, and remarks on the others.

    Attributes:
        counts: reason -> number of files and folders left out. A reason completes "files and folders left out: N ...".
        examples: reason -> names or suffixes -> number of files.
        remarks: lines on samples that are listed, but perhaps not as the user expects.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Counter[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, example: str) -> None:
        """Count a file or folder that is left out.

        Args:
            example: its path or, where many share one, its suffix.
        """
        self.counts[reason] += 1
        examples = self.examples.setdefault(reason, Counter())
        if example in examples or len(examples) < _MOST_EXAMPLES:
            examples[example] += 1

    def remark(self, text: str) -> None:
        """Add a line on samples that are listed."""
        self.remarks.append(printable(as_text(text)))

    def left_out(self) -> list[dict[str, Any]]:
        """Return one object per reason, the most frequent first, for `hdm plan --json`."""
        return [
            {"reason": reason, "count": count, "examples": dict(self._most_frequent(reason))} for reason, count in self.counts.most_common()
        ]

    def left_out_text(self) -> str:
        """Return the counts by reason in one line; empty if nothing was left out."""
        parts = [f"{count:,} {reason} ({self._name_examples(reason)})" for reason, count in self.counts.most_common()]
        return f"files and folders left out: {', '.join(parts)}" if parts else ""

    def lines(self) -> list[str]:
        """Return one line for all that was left out, and one per remark."""
        return [f"dataset: {text}" for text in (self.left_out_text(), *self.remarks) if text]

    def _most_frequent(self, reason: str) -> list[tuple[str, int]]:
        ordered = sorted(self.examples[reason].items(), key=lambda item: (-item[1], item[0]))
        return [(printable(as_text(name)), count) for name, count in ordered[:_EXAMPLES]]

    def _name_examples(self, reason: str) -> str:
        most_frequent = self._most_frequent(reason)
        is_counted = most_frequent[0][1] > 1  # suffixes; paths differ
        names = [f"{count:,} {name}" if is_counted else name for name, count in most_frequent]
        return ", ".join([*names, "..."] if len(self.examples[reason]) > _EXAMPLES else names)


class Listing(list[Sample]):
    """Samples in row order, with the notes of their listing.

    Attributes:
        notes: what was left out, and remarks.
    """

    def __init__(self, samples: Iterable[Sample] = (), notes: ListingNotes | None = None) -> None:
        super().__init__(samples)
        self.notes = ListingNotes() if notes is None else notes


def notes_of(samples: Iterable[Sample]) -> ListingNotes:
    """Return the notes of a listing; empty ones for a plain list of samples."""
    return samples.notes if isinstance(samples, Listing) else ListingNotes()
