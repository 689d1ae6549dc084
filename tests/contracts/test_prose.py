"""Style of the docstrings of hdm_core, pipeline, flows, benchmarks and infra/gpu."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("hdm_core", "pipeline", "flows", "benchmarks", "infra/gpu")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def first_lines(module: Path) -> list[str]:
    """Return the first line of each docstring of a module."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, documented)]
    return [docstring.splitlines()[0] for docstring in docstrings if docstring]


def count_violations(lines: list[str]) -> dict[str, int]:
    """Count the first lines that open with a question word, and those of more than 80 characters."""
    questions = [line for line in lines if re.match(r"(What|How|Where|Which|Whether|Who|When|Why)\b", line)]
    return {"question words": len(questions), "longer than 80 characters": sum(len(line) > 80 for line in lines)}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_open_with_one_short_statement(module: Path) -> None:
    lines = first_lines(module)
    assert count_violations(lines) == {"question words": 0, "longer than 80 characters": 0}, lines
