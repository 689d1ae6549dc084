"""Reuse from a run that `hdm measure` measured: its numbers have other settings than run.json."""

from __future__ import annotations

from hdm_core import MetricSettings
from pipeline.plan import Plan
from pipeline.reexplain.previous import PreviousRun
from pipeline.runs import RunStore
from pipeline.runs.measured import MeasureState, explicit, write_state
from pipeline.runs.metadata import run_json
from tests.support.plans import configuration, plan_of, write_all


def test_numbers_of_other_settings_are_not_reused(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    write_all(store, plan)
    assert PreviousRun.read(store).incompatibilities(run_json(plan)) == []
    for settings, finished, differing in [
        (MetricSettings(baseline="blur"), True, ["metrics.baseline ('blur', now 'mean')"]),
        (MetricSettings(), True, []),
        (MetricSettings(), False, ["unfinished"]),
    ]:
        write_state(store.storage, MeasureState(explicit(settings), finished))
        found = PreviousRun.read(store).incompatibilities(run_json(plan))
        assert bool(found) == bool(differing)
        if finished:
            assert found == differing


def test_a_run_without_metrics_takes_the_maps_of_any(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    write_all(store, plan)
    write_state(store.storage, MeasureState(explicit(MetricSettings(baseline="blur")), finished=True))
    bare = plan_of(configuration(output=plan.config.output, metrics="none"))
    assert PreviousRun.read(store).incompatibilities(run_json(bare)) == []
