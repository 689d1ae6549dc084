"""Output of the commands: tables for people, one JSON object for programs."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console(width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, width=None if sys.stderr.isatty() else 200)

# Signs of tables and messages, as encodings without them show them. Other characters become escapes, so that a name stays a name.
_PLAIN_SIGNS = {"±": "+-", "↓": "v", "↑": "^", "…": "..."}


def accept_any_encoding() -> None:
    """Let the output streams replace what their encoding lacks, instead of raising.

    The encoding is that of the terminal, the locale or PYTHONIOENCODING, and may be ASCII, Latin-1 or cp1252. In UTF-8 only the halves of
    surrogate pairs are replaced, of which names of files that are not UTF-8 consist.
    """
    codecs.register_error("hdm-plain", _replace_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="hdm-plain")


def _replace_unencodable(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN_SIGNS.get(each) or each.encode("ascii", "backslashreplace").decode() for each in text), error.end


def print_json(facts: Mapping[str, Any]) -> None:
    """Print facts as one line of JSON on standard output.

    What the encoding of the output lacks is escaped as JSON does, so that a program reads the same text.
    """
    text = json.dumps(facts, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(facts)
    sys.stdout.write(text + "\n")


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print facts as a table, one fact per row."""
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        table.add_row(name, Text(str(value), overflow="fold"))
    out.print(table)
