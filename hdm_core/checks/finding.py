"""Findings of a check: what was measured, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

# ok: as expected. handled: unusual, and the result is right. doubtful: perhaps a mistake. refused: the result would be wrong.
Verdict = Literal["ok", "handled", "doubtful", "refused"]


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        subject: what was checked, such as output or gradient.
        verdict: ok, handled, doubtful or refused.
        text: what was measured; of a refusal also what to do.
        methods: ids of the methods that it applies to; empty for all of them and the metrics.
    """

    subject: str
    verdict: Verdict
    text: str
    methods: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON has it."""
        return {"subject": self.subject, "verdict": self.verdict, "text": self.text, "methods": list(self.methods)}

    def __str__(self) -> str:
        return f"{', '.join(self.methods)}: {self.text}" if self.methods else self.text


def refusals(findings: Sequence[Finding]) -> str:
    """Join the refusals into one line; empty if there are none."""
    return "; ".join(str(finding) for finding in findings if finding.verdict == "refused")
