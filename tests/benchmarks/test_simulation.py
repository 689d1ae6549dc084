"""The simulation of large runs, against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulation import Model, simulate

EXACT = Model(1.0, 10, 2, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 7, 40.0, 0.0, 3.6, 1.0, 0.0)


def test_a_run_without_chance_takes_the_seconds_of_its_busiest_worker() -> None:
    # 45 images are 4 shards of 10 and one of 5, which is the first; two workers start in 5 s: 5 + 10 + 10 against 10 + 10.
    found = simulate(45, 1, EXACT)
    assert found.seconds == 5 + 25
    assert found.busy == pytest.approx(45 / 60)
    assert (found.lost, found.preemptions) == (0, 0)
    assert found.gpu_hours == pytest.approx(30 / 3600)
    assert found.writes == 5 * (7 + 1 + 4) + 4, "45 s of leases, renewed every 10 s"
    assert found.dollars == pytest.approx(3.6 * 30 / 3600 + found.writes)


def test_every_image_is_computed_whatever_is_preempted_and_the_same_seed_repeats() -> None:
    model = replace(EXACT, preemptions_per_hour=60.0, shard_spread=0.2)
    found, calm = simulate(10_000, 4, model), simulate(10_000, 4, replace(model, preemptions_per_hour=0.0))
    assert found == simulate(10_000, 4, model)
    assert found.writes > 1000 * 12, "1,000 commits"
    assert found.preemptions > 10
    assert 0.02 < found.lost < 0.5, "60 per hour and GPU against shards of 10 s: one in six, half of it done"
    assert found.seconds > calm.seconds
    assert calm.busy > 0.95
