"""What the commands print: tables for people on a terminal, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

out = Console(width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, width=None if sys.stderr.isatty() else 200)


def print_json(facts: Mapping[str, Any]) -> None:
    """Facts as one line of JSON on standard output."""
    sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")


def print_facts(facts: Mapping[str, Any]) -> None:
    """Facts, one a line, beside their names."""
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        table.add_row(name, Text(str(value), overflow="fold"))
    out.print(table)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, told how many of how many are done; elsewhere nothing."""
    with Progress(console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
