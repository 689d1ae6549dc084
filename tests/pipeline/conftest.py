"""Fixtures of the pipeline's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.plan import Plan
from pipeline.store import RunStore
from tests.pipeline.material import configuration, plan_of


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Five images in shards of two, explained by HDM and Grad-CAM, to be written below tmp_path."""
    return plan_of(configuration(output=str(tmp_path / "runs")))


@pytest.fixture
def store(plan: Plan) -> RunStore:
    """Where the plan's run goes; nothing is there yet."""
    return RunStore.at(plan.config)
