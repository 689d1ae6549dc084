"""Shares of a GPU, measured side by side: on a real Ray, whose one GPU exists in its books only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from pipeline.config.load import load_config
from pipeline.execution import shares
from pipeline.execution.shares import ShareSpeed, measure_shares, parse_shares, recommend
from pipeline.monitoring.progress import Progress
from pipeline.plan import Plan, make_plan
from tests.pipeline.conftest import Ended
from tests.support.paths import COUNTED_GPUS
from tests.support.plans import configuration, mapping, plan_of, refused, save_picture

IMAGES = 3


def keys(folder: Path, **compute: Any) -> dict[str, Any]:
    for number in range(IMAGES):
        save_picture(folder / "images" / f"{number}.png", seed=number)
    return mapping(
        name="mine",
        dataset={"kind": "folder", "root": str(folder / "images")},
        classifier={
            "source": "import",
            "factory": "tests.support.failing_device:network_for",
            "arguments": {"share": 0.5},
            "resize": 32,
            "crop": 32,
        },
        methods=["grad_cam", "gradient"],
        compute=compute,
        output=str(folder / "runs"),
    )


# Which share is best


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ([(1, 1, 10.0), (0.5, 2, 10.4), (0.25, 4, 9.0)], 1),  # 4% faster is not worth a second worker
        ([(1, 1, 9.8), (0.5, 2, 10.4), (0.25, 4, 9.0)], 0.5),
        ([(0.25, 4, 20.0), (0.5, 2, 10.0), (1, 1, 5.0)], 0.25),
        ([(1, 1, None), (0.5, 2, 3.0), (0.25, 4, None)], 0.5),
        ([(0.6, 1, 5.0), (1, 1, 5.0)], 1),  # as many workers: the share with more memory
        ([(1, 1, 9.5), (0.5, 2, 10.0)], 1),
    ],
)
def test_the_fewest_workers_within_5_percent_of_the_best_are_recommended(
    speeds: list[tuple[float, int, float | None]], best: float
) -> None:
    found = recommend([ShareSpeed(*speed) for speed in speeds])
    assert found is not None
    assert found.share == best


def test_nothing_is_recommended_where_nothing_was_measured() -> None:
    assert recommend([ShareSpeed(1, 1, error="no memory")]) is None
    assert recommend([]) is None


# Bad input


def test_shares_are_parsed_once_each() -> None:
    assert parse_shares("1, 0.5,0.25,0.5") == [1, 0.5, 0.25]


@pytest.mark.parametrize(
    ("text", "part"),
    [("0", "'0'"), ("1,2", "'2'"), ("1,-0.5", "'-0.5'"), ("", "''"), ("half", "'half'"), ("1,nan", "'nan'"), ("inf", "'inf'")],
)
def test_a_share_that_is_none_is_one_line(text: str, part: str) -> None:
    message = refused(lambda: parse_shares(text))
    assert message == f"--shares {text}: {part} is no share of a GPU above 0 and at most 1; write for example 1,0.5,0.25"


def test_a_bad_share_ends_the_command_before_the_plan(here: Callable[..., Ended]) -> None:
    ended = here("plan", "demo", "--shares", "1,3")
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("hdm: --shares 1,3: '3' is no share")


def test_the_local_executor_has_no_shares() -> None:
    plan = plan_of(configuration({"compute.executor": "local"}))
    assert refused(lambda: measure_shares(plan, [1])).startswith(
        "compute.executor is local: shares of a GPU are measured with workers on Ray"
    )


@pytest.mark.server
def test_a_cluster_without_a_gpu_is_one_line() -> None:
    ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, log_to_driver=False)
    try:
        message = refused(lambda: measure_shares(plan_of(configuration()), [1]))
    finally:
        ray.shutdown()
    assert message == "--shares: the cluster has no GPU of which workers could get shares; leave the option out, or add a GPU"


# Measured


@pytest.fixture(scope="class")
def one_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(COUNTED_GPUS), *sys.path]))
        ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(load_config(keys(tmp_path)))


def left_over(plan: Plan) -> list[Path]:
    return list(Path(plan.config.output).rglob("*"))


@pytest.mark.server
@pytest.mark.usefixtures("one_gpu")
class TestOnOneGPU:
    @pytest.mark.nightly
    def test_shares_are_measured_side_by_side_and_one_that_does_not_fit_says_so(self, plan: Plan) -> None:
        seen: list[Progress] = []
        speeds = measure_shares(plan, [1, 0.25, 0.5], seen.append)
        assert [(speed.share, speed.workers) for speed in speeds] == [(1, 1), (0.25, 4), (0.5, 2)]
        whole, quarter, half = speeds
        assert whole.error is None
        assert half.error is None
        assert (whole.images_per_second or 0) > 0
        assert (half.images_per_second or 0) > 0
        assert quarter.images_per_second is None
        assert quarter.error is not None
        assert "CUDA out of memory" in quarter.error
        assert "\n" not in quarter.error
        assert left_over(plan) == []
        assert seen[-1].done == seen[-1].total == 3
        assert any(progress.note == "share 0.5: 2 workers" for progress in seen)
        assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
        assert ray.available_resources()["GPU"] == 1

    def test_the_command_prints_a_table_or_json(self, tmp_path: Path, here: Callable[..., Ended]) -> None:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(keys(tmp_path)))
        ended = here("plan", tmp_path / "mine.yaml", "--shares", "1,0.3", "--json")
        assert ended.code == 0, ended.err
        facts = json.loads(ended.out)
        assert facts["images"] == IMAGES
        assert facts["recommended_share"] == 1
        assert [(found["share"], found["workers"], found["error"] is None) for found in facts["shares"]] == [(1, 1, True), (0.3, 3, False)]
        assert "share 0.3, 3 workers: not measured: " in ended.err
        ended = here("plan", tmp_path / "mine.yaml", "--shares", "0.25")
        assert ended.code == 2
        assert "0.25" in ended.out
        assert ended.err.strip().splitlines()[-1].startswith("hdm: no share could be measured: ")

    def test_work_of_others_on_the_gpus_is_one_line(self, plan: Plan) -> None:
        holder = ray.remote(num_gpus=0.5, num_cpus=0)(Holder).remote()
        ray.get(holder.ready.remote())
        (speed,) = measure_shares(plan, [0.5])
        ray.kill(holder)
        shares._await_free_gpus(1.0)
        assert speed.error == "only 0.5 of 1 GPUs are free; stop the other work on the cluster"


class Holder:
    def ready(self) -> bool:
        return True


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
