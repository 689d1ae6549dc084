"""CSV of images to look at: audit/review.csv."""

from __future__ import annotations

import csv
import io

import pyarrow as pa

from pipeline.audit.audit import Audit
from pipeline.audit.finding import Finding
from pipeline.tables.formats import csv_text

HEAD = ("image_id", "class", "action", "reason", "score")


def review_csv(audit: Audit) -> bytes:
    """Return one row per image that a finding is about, the strongest first.

    Refuted findings are left out. The action is "relabel" for a confident mistake, "remove" where the class is proved to depend on the
    place (the image, or the mark from it), "open" else, so also for a confirmed background, which all images of a class may have. The
    score is 1 + effect of a confirmed finding, else the finding's share; an image with several findings has their reasons and the
    largest score.
    """
    reasons: dict[int, list[Finding]] = {}
    for finding in audit.findings:  # the strongest first
        if finding.confirmed is not False:
            for row in finding.rows:
                reasons.setdefault(row, []).append(finding)
    names = audit.store.images()["image_id"].take(pa.array(list(reasons), pa.int64())).to_pylist()
    lines = [
        (name, found[0].class_name, _action(found), "; ".join(each.text for each in found), max(map(_score, found)))
        for name, found in zip(names, reasons.values(), strict=True)
    ]
    lines.sort(key=lambda line: -line[-1])
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(HEAD)
    for *cells, score in lines:
        writer.writerow([*map(csv_text, cells), f"{score:.3f}"])
    return text.getvalue().encode()


def _action(found: list[Finding]) -> str:
    if any(each.confirmed and each.kind == "spatial" for each in found):
        return "remove"
    return "relabel" if any(each.mistakes for each in found) else "open"


def _score(finding: Finding) -> float:
    return 1 + abs(finding.effect or 0.0) if finding.confirmed else finding.share or 0.0
