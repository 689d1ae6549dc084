"""Table of architectures and methods, for a page of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.models import ModelResult
from hdm_core import METHODS, method_title
from pipeline.errors import InputError

BEGIN, END = "<!-- architectures: python -m benchmarks models --page docs/models.md -->", "<!-- end of architectures -->"


def write_page(path: Path, results: list[ModelResult]) -> None:
    """Replace the table of a page, between its two marks.

    Raises:
        InputError: if the page has no marks.
    """
    text = path.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InputError(f"--page {path}: it must have the lines {BEGIN} and {END}")
    path.write_text(f"{head}{BEGIN}\n{models_table(results)}{END}{tail}", encoding="utf-8")


def models_table(results: list[ModelResult]) -> str:
    """Build the table, and the list of reasons below it.

    It has one row per architecture and one column per family of methods.
    """
    families: dict[str, list[str]] = {}
    for method in results[0].verdicts:
        families.setdefault(METHODS[method].family, []).append(method)
    reasons: dict[str, str] = {}  # text -> letter
    rows = [["architecture", "side", *families, "layer of the CAMs, maps"], ["---"] * (3 + len(families))]
    for result in results:
        cells = [_cell(result, methods, reasons) for methods in families.values()]
        rows.append([f"`{result.arch}` ({result.source})", str(result.side), *cells, result.layer])
    counts = [
        sum(verdict == name for result in results for verdict in result.verdicts.values()) for name in ("ok", "checked", "refused", "error")
    ]
    names = "; ".join(f"{family}: {', '.join(method_title(method) for method in methods)}" for family, methods in families.items())
    total = ", ".join(f"{count} {text}" for count, text in zip(counts, ("ran", "were checked", "are refused", "failed"), strict=True))
    lines = [
        f"{len(results)} architectures, {len(results[0].verdicts)} methods: {total}.",
        f"Families of methods: {names}.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- **{letter}**: {text}" for text, letter in reasons.items()),
    ]
    return "\n".join(lines) + "\n"


def _cell(result: ModelResult, methods: Iterable[str], reasons: dict[str, str]) -> str:
    """Return the verdicts of some methods.

    Those that are not ok are named, with the letter of the reason.
    """
    groups: dict[str, list[str]] = {}
    for method in methods:
        verdict = result.verdicts[method]
        if verdict in ("refused", "error"):
            text = kind_of(result.reasons[method])
            letter = reasons.setdefault(text, _letter(len(reasons)))
            verdict = letter if verdict == "refused" else f"error {letter}"
        groups.setdefault("ok" if verdict == "checked" else verdict, []).append(method)
    if len(groups) == 1:
        return next(iter(groups))
    others = [f"{', '.join(map(method_title, named))} {verdict}" for verdict, named in groups.items() if verdict != "ok"]
    return "; ".join([*(["ok"] if "ok" in groups else []), *others])


def kind_of(reason: str) -> str:
    """Return a reason without its numbers, so that equal reasons are equal texts."""
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "N", reason)


def _letter(number: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[number % 26]
