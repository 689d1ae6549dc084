"""Markdown building blocks shared by the generated pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """Quote text as inline code, also where it has a bar; an empty string stays empty."""
    escaped = cell(text).replace("\\|", "&#124;")
    return f"<code>{escaped}</code>" if escaped else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Join rows of finished cells into a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
