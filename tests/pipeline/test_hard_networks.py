"""Runs of networks that only some methods can explain: those run, and the others are named before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.execution.driver import explain_run, plan_run
from tests.support.plans import configuration, save_picture

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def keys(folder: Path, factory: str, **more: Any) -> dict[str, Any]:
    for number in range(3):
        save_picture(folder / "images" / f"{number}.png", seed=number)
    return {
        "dataset": {"kind": "folder", "root": str(folder / "images")},
        "classifier": {"source": "import", "factory": f"tests.support.hard_networks:{factory}", "resize": 16, "crop": 16},
        "compute": {"executor": "local", "batch_size": 4},
        "output": str(folder / "runs"),
        "hdm": {},
        **more,
    }


@pytest.mark.parametrize(
    ("factory", "methods"),
    [("int8", ["rise", "score_cam"]), ("frozen", ["rise"]), ("HeadWithoutGradient", ["rise", "ablation_cam"]), ("OutsideTorch", ["rise"])],
)
def test_the_methods_that_can_run_do(factory: str, methods: list[str], tmp_path: Path) -> None:
    config = configuration(**keys(tmp_path, factory, methods=methods, rise={"masks": 8}))
    plan, store = plan_run(config)
    summary = explain_run(plan, store)
    assert summary.failed_shards == []
    assert summary.errors == {}
    (records,) = Path(store.url).glob("records/*.parquet")
    rows = pq.read_table(records).to_pylist()
    assert sorted({row["method"] for row in rows}) == sorted(methods)
    assert {row["status"] for row in rows} == {"ok"}


@pytest.mark.parametrize(
    ("factory", "left"),
    [
        ("int8", "rise, score_cam, ablation_cam, eigen_cam, occlusion, center, edges, random_map"),
        (
            "scripted",
            (
                "hdm, dm, gradient, integrated_gradients, rise, mask, smooth_grad, input_x_gradient, occlusion, expected_gradients, "
                "igos_pp, center, edges, random_map"
            ),
        ),
        ("OutsideTorch", "rise, occlusion, center, edges, random_map"),
    ],
)
def test_all_methods_are_refused_with_those_to_write(factory: str, left: str, tmp_path: Path) -> None:
    config = configuration(**keys(tmp_path, factory, methods="all"))
    with pytest.raises(InputError) as caught:
        plan_run(config)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"classifier: tests.support.hard_networks:{factory}: ")
    assert message.endswith(f"; these can run: methods: [{left}]")
    assert not (tmp_path / "runs").exists()


def test_half_precision_is_refused_in_one_line(tmp_path: Path) -> None:
    config = configuration(**keys(tmp_path, "half", methods=["rise"]))
    with pytest.raises(InputError) as caught:
        plan_run(config)
    assert str(caught.value).endswith("has weights of torch.float16, and images are float32: convert it by float()")
