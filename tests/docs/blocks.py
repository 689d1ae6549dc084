"""Fenced code blocks of the documentation, with the marker of those that are not run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\s*$")
_MARKER = re.compile(r"^ *<!-- not run: (?P<reason>.+) -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path in the repository.
        line: line of the page on which the text starts, from 1.
        language: the fence's language; empty if it has none.
        reason: the reason in the marker above it, or None if it is checked.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None = None

    def __str__(self) -> str:
        """Return page:line, as an editor opens it."""
        return f"{self.page}:{self.line}"

    @property
    def code(self) -> str:
        """The text behind empty lines, so that errors name the page's own lines."""
        return "\n" * (self.line - 1) + self.text


def blocks_of(page: Path) -> Iterator[Block]:
    """Iterate over the blocks of a page; a fence that is not closed is an error."""
    name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
    opened: tuple[int, str, str, str | None] | None = None
    text: list[str] = []
    before = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            marker = _MARKER.match(before)
            opened, text = (number + 1, fence["language"], fence["indent"], marker["reason"] if marker else None), []
        elif opened and fence and not fence["language"]:
            start, language, indent, reason = opened
            yield Block(name, start, language, "".join(f"{part.removeprefix(indent)}\n" for part in text), reason)
            opened = None
        elif opened:
            text.append(line)
        before = line
    assert opened is None, f"{name}:{opened and opened[0]}: the block is not closed"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def checked(language: str, page: str | None = None) -> list[Block]:
    """Return the blocks of a language without a marker, of one page or all."""
    return [block for block in BLOCKS if block.language == language and block.reason is None and page in {None, block.page}]
