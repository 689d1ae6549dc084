"""Output of the commands: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console(width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, width=None if sys.stderr.isatty() else 200)


def print_json(facts: Mapping[str, Any]) -> None:
    """Print facts as one line of JSON on standard output."""
    sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print facts as a table, one fact per row."""
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        table.add_row(name, Text(str(value), overflow="fold"))
    out.print(table)
