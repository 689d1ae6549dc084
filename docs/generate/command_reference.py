"""Command reference, generated from the typer applications `hdm` and `python -m benchmarks`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from md_table import cell, code, table


def command_reference() -> str:
    """Build the page of all commands."""
    from benchmarks.cli import bench
    from pipeline.cli.main import app

    parts = [commands(app, "hdm")]
    parts.append("## Benchmarks\n\nThey are part of the checkout, not of the installed package.\n")
    parts.append(commands(bench, "python -m benchmarks"))
    return "\n".join(parts)


def commands(app: typer.Typer, program: str) -> str:
    """Build one section per command of an application, also of its groups."""
    return "\n".join(_sections(typer.main.get_command(app), program))


def _sections(group: Any, program: str) -> Iterator[str]:
    for name in sorted(group.commands):
        command = group.commands[name]
        yield _section(command, f"{program} {name}")
        if hasattr(command, "commands"):
            arguments = (param.metavar or param.name.upper() for param in command.params if param.param_type_name == "argument")
            yield from _sections(command, " ".join([program, name, *arguments]))


def _section(command: Any, title: str) -> str:
    rows = []
    for param in command.params:
        if param.name == "help":
            continue
        if param.param_type_name == "argument":
            name = param.metavar or param.name.upper()
        else:
            name = ", ".join([*param.opts, *param.secondary_opts])
            name += f" {param.metavar}" if param.metavar else ""
        default = "" if param.default in (None, False, ()) or callable(param.default) else str(param.default)
        rows.append([code(name), "required" if param.required else code(default), cell(getattr(param, "help", None) or "")])
    text = " ".join((command.help or "").split())
    return f"### {title}\n\n{text}\n\n{table(['argument', 'default', 'meaning'], rows) if rows else ''}"
