"""Fixtures of the tests of runs on storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.tables.aggregate import aggregate
from tests.support.plans import write_all


@pytest.fixture
def run(plan: Plan, store: RunStore) -> Path:
    """Folder of a run that is finished and aggregated."""
    store.create(plan)
    write_all(store, plan)
    aggregate(store)
    return Path(store.url)
