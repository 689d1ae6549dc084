"""Fixtures of the fault matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.runs import RunStore
from tests.support.fault_runs import IMAGES, contents, settings, written
from tests.support.small_run import hdm, photographs


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the runs with faults, and their photographs."""
    path = tmp_path_factory.mktemp("faults")
    photographs(path / "photographs", IMAGES)
    return path


@pytest.fixture(scope="session")
def undisturbed(folder: Path) -> dict[str, Any]:
    """Contents with which all runs must end."""
    done = hdm("run", written(folder, "undisturbed"))
    assert done.returncode == 0, done.stderr
    store = RunStore.from_config(settings(folder, "undisturbed"))
    assert set(store.records()["status"].to_pylist()) == {"ok"}, "flat maps would have the same bytes in any case"
    return contents(store)
