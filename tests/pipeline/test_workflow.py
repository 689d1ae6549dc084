"""The walk through a run: its steps, in their order, whoever passes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.execution.driver import RunSummary
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.workflow import Steps, finish_steps, run_steps
from tests.support.plans import configuration, plan_of

PLAN = plan_of(configuration())
STORE = RunStore.from_config(PLAN.config)


def recording(calls: list[str], planned: tuple[Plan, RunStore] | None = (PLAN, STORE)) -> Steps:
    """Steps that record their names and do nothing."""

    def record(name: str, result: Any) -> Any:
        def step(*_: Any) -> Any:
            calls.append(name)
            return result

        return step

    summary = RunSummary(STORE, images=5, shards=3, already_done=0)
    return Steps(record("train", None), record("plan", planned), record("execute", summary), record("report", "index.html"))


def untrained(folder: Path) -> RunConfig:
    """A run whose classifier must be trained first."""
    classifier = {"source": "checkpoint", "path": str(folder / "birds"), "train": "cub-mobilenet"}
    return load_config("cub-full", {"dataset.root": "CUB_200_2011", "classifier": classifier})


def test_a_classifier_that_is_missing_is_trained_before_the_plan(tmp_path: Path) -> None:
    calls: list[str] = []
    summary = run_steps(untrained(tmp_path), recording(calls))
    assert calls == ["train", "plan", "execute", "report"]
    assert summary is not None
    assert (summary.report, summary.url) == ("index.html", STORE.url)


def test_nothing_is_trained_for_a_classifier_that_needs_no_training() -> None:
    calls: list[str] = []
    run_steps(configuration(), recording(calls))
    assert calls == ["plan", "execute", "report"]


def test_a_plan_with_nothing_to_do_ends_the_walk() -> None:
    calls: list[str] = []
    assert run_steps(configuration(), recording(calls, planned=None)) is None
    assert calls == ["plan"]


def test_a_repair_begins_after_the_plan() -> None:
    calls: list[str] = []
    finish_steps(PLAN, STORE, recording(calls))
    assert calls == ["execute", "report"]
