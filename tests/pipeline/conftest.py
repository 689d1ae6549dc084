"""Fixtures of the pipeline's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pipeline.cli.main import main
from pipeline.execution.cluster import CPU_ENVIRONMENT


@dataclass(frozen=True)
class Ended:
    """How a command ended in this process."""

    code: int
    out: str
    err: str


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`hdm ...` in this process: a process of its own takes seconds to import its libraries."""
    for name, value in CPU_ENVIRONMENT.items():  # else the command starts itself once more
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["hdm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run
