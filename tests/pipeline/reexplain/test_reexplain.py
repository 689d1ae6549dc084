"""An incremental run reuses what has not changed, and ends as a run from nothing would. Workers run in this process."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr
from PIL import Image

from pipeline.config.schema import RunConfig
from pipeline.execution.driver import plan_run
from pipeline.execution.worker import Worker
from pipeline.execution.worker_actor import WorkerActor
from pipeline.plan import Plan, make_plan
from pipeline.reexplain.plan import ReexplainPlan, create_run, plan_reexplain
from pipeline.reexplain.series import next_name
from pipeline.runs import RunStore
from tests.support.plans import configuration, mapping, refused, save_picture
from tests.support.small_run import hdm

METHODS = ["hdm", "grad_cam", "eigen_cam"]
LATER = datetime(2026, 12, 1, 3, tzinfo=UTC)


def config(folder: Path, **changes: Any) -> RunConfig:
    keys = {
        "methods": METHODS,
        "metrics": {"protocol": "rise"},
        "compute": {"shard_size": 3, "batch_size": 1, "lease_seconds": 5},
        "output": str(folder / "runs"),
    }
    return configuration(**{**keys, "dataset": {"kind": "folder", "root": str(folder / "images")}, **changes})


def work(planned: tuple[Plan, RunStore], shards: int | None = None) -> tuple[RunStore, int]:
    """Do a run's open shards, or the first of them; also return the passes that they took."""
    plan, store = planned
    reuse, worker = store.reuse(), Worker(plan.config, plan.weights_digest)
    for shard in [shard for shard in plan.shards if shard.index not in store.done()][:shards]:
        rows = None if reuse is None else reuse.rows(shard.start, shard.stop)
        worker.run(shard, plan.samples[shard.start : shard.stop], None, rows)
    store.write_image_facts()
    return store, worker.passes()


def again(config: RunConfig, since: str | None = None, hours: int = 0) -> ReexplainPlan:
    return plan_reexplain(config, since, now=LATER + timedelta(hours=hours))


def whys(planned: ReexplainPlan) -> dict[str, tuple[str, str]]:
    return {change.image_id: (change.state, change.why) for change in planned.changes}


def same(left: RunStore, right: RunStore) -> None:
    """Two runs say the same: maps, records but for where and when they were computed, curves, what is known of the images."""
    ours, theirs = (zarr.open_group(store.storage.zarr("maps.zarr"), mode="r") for store in (left, right))
    assert sorted(ours) == sorted(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name][:], theirs[name][:])
    ignored = ["run", "seconds", "reused_from"]
    assert left.records().drop_columns(ignored).equals(right.records().drop_columns(ignored))
    assert left.images().equals(right.images())
    assert [part.to_pylist() for part in left.curves()] == [part.to_pylist() for part in right.curves()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with six photographs, a file that is none, and a finished run of them in three shards."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(6):
        save_picture(folder / "images" / "ab"[number % 2] / f"{number}.png", seed=number)
    (folder / "images" / "a" / "broken.png").write_bytes(b"no image")
    store, passes = work(plan_run(config(folder)))
    assert passes == 6 * sum(store.metadata()["passes_per_image"].values())
    return folder


@pytest.fixture
def first(made: Path, tmp_path: Path) -> tuple[Path, RunStore]:
    """A copy of it to change."""
    shutil.copytree(made, tmp_path / "first")
    return tmp_path / "first", RunStore.open(str(tmp_path / "first" / "runs" / "tiny"))


def test_where_nothing_changed_the_earlier_run_is_referred_to(first: tuple[Path, RunStore]) -> None:
    folder, store = first
    planned = again(config(folder))
    assert planned.unchanged
    assert planned.passes == 0
    assert planned.counts == {"new": 0, "changed": 0, "gone": 0, "reused": 7}
    assert planned.line() == f"nothing changed since {store.url}: it is referred to, and no new run is made"


def test_only_what_changed_is_computed_and_the_rest_is_as_if_it_had_been(first: tuple[Path, RunStore]) -> None:
    folder, _ = first
    images = folder / "images"
    (images / "a" / "0.png").rename(images / "a" / "zero.png")
    (images / "b" / "1.png").unlink()
    save_picture(images / "a" / "2.png", seed=22)
    save_picture(images / "b" / "new.png", seed=7)
    (images / "a" / "broken.png").write_bytes(b"still no image")
    planned = again(config(folder))
    assert whys(planned) == {
        "a/2.png": ("changed", "the image has other contents"),
        "a/4.png": ("reused", "from tiny"),
        "a/broken.png": ("changed", "the image has other contents"),
        "a/zero.png": ("reused", "from tiny, where it has another id"),
        "b/3.png": ("reused", "from tiny"),
        "b/5.png": ("reused", "from tiny"),
        "b/new.png": ("new", "it is not in tiny"),
        "b/1.png": ("gone", "it was in tiny"),
        "a/0.png": ("gone", "it was in tiny"),
    }
    store, passes = work(create_run(planned))
    assert passes == 2 * sum(store.metadata()["passes_per_image"].values())
    assert planned.passes == 3 * sum(
        store.metadata()["passes_per_image"].values()
    )  # the file that is none would take as many, if it were one
    fresh, _ = work(plan_run(config(folder, name="fresh")))
    same(store, fresh)
    assert {row["image_id"] for row in store.records().to_pylist() if row["reused_from"] is None} == {
        "a/2.png",
        "a/broken.png",
        "b/new.png",
    }

    assert again(config(folder), hours=1).unchanged  # the second run is now the one to compare with
    save_picture(images / "a" / "2.png", seed=23)
    third, _ = work(create_run(again(config(folder), hours=1)))
    origins = {row["image_id"]: row["reused_from"] for row in third.records().to_pylist()}
    assert origins["a/4.png"] == "tiny"  # and who computed it is known over two hands
    assert origins["b/new.png"] == "tiny-2026-12-01T030000"


def test_a_new_method_and_another_setting_compute_only_themselves(first: tuple[Path, RunStore]) -> None:
    folder, _ = first
    wanted = config(folder, methods=[*METHODS, "gradient"], hdm={**mapping()["hdm"], "steps": 4})
    planned = again(wanted)
    assert {change.why for change in planned.changes if change.state == "changed"} == {"hdm.steps (3, now 4); gradient is a new method"}
    store, passes = work(create_run(planned))
    each = store.metadata()["passes_per_image"]
    assert passes == 6 * (each["hdm"] + each["gradient"])
    assert {(row["method"], row["reused_from"]) for row in store.records().to_pylist() if row["status"] == "ok"} == {
        ("hdm", None),
        ("gradient", None),
        ("grad_cam", "tiny"),
        ("eigen_cam", "tiny"),
    }
    same(store, work(plan_run(wanted.model_copy(update={"name": "fresh"})))[0])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seed": 1}, "the classifier has other weights"),
        ({"classifier": {"arch": "squeezenet1_1", "resize": 34, "crop": 32}}, "classifier.interface.resize (32, now 34)"),
        ({"target": 3}, "target ('predicted', now 3)"),
        ({"metrics": {"protocol": "paper"}}, "metrics.protocol ('rise', now 'paper')"),
    ],
)
def test_what_determines_every_explanation_computes_all_anew(first: tuple[Path, RunStore], changes: dict[str, Any], why: str) -> None:
    planned = again(config(first[0], **changes))
    assert {change.state for change in planned.changes} == {"changed"}
    assert all(why in change.why for change in planned.changes)
    assert planned.passes == planned.plan.passes


def test_another_ground_truth_is_measured_anew(tmp_path: Path) -> None:
    for number in range(2):
        save_picture(tmp_path / f"{number}.png", seed=number)
        Image.new("L", (24, 20), 255).save(tmp_path / f"mask{number}.png")
    (tmp_path / "list.csv").write_text("path,mask\n0.png,mask0.png\n1.png,mask1.png\n")
    wanted = config(tmp_path, dataset={"kind": "manifest", "root": str(tmp_path / "list.csv")}, methods=["grad_cam"])
    work(plan_run(wanted))
    smaller = Image.new("L", (24, 20))
    smaller.paste(255, (0, 0, 12, 20))
    smaller.save(tmp_path / "mask1.png")
    planned = again(wanted)
    assert list(whys(planned).values()) == [("reused", "from tiny"), ("changed", "its ground truth has other contents")]
    store, _ = work(create_run(planned))
    assert store.records()["proportion"].to_pylist()[0] == 1
    same(store, work(plan_run(wanted.model_copy(update={"name": "fresh"})))[0])


def test_a_killed_reexplanation_goes_on_to_the_same_bytes(first: tuple[Path, RunStore]) -> None:
    folder, _ = first
    save_picture(folder / "images" / "a" / "2.png", seed=22)
    begun, _ = work(create_run(again(config(folder))), shards=1)
    going_on = again(config(folder), hours=1)
    assert going_on.unfinished
    assert going_on.line() == "tiny-2026-12-01T030000 is not finished and is resumed"
    store, _ = work(create_run(going_on))
    assert store.url == begun.url
    same(store, work(plan_run(config(folder, name="fresh")))[0])


def test_a_run_that_was_killed_gives_what_it_had_done(tmp_path: Path) -> None:
    """After another classifier came: the unfinished run of the new one, and the finished one of the old, are looked at both."""
    for number in range(4):
        save_picture(tmp_path / "images" / f"{number}.png", seed=number)
    work(plan_run(config(tmp_path)))
    work(create_run(again(config(tmp_path, seed=1))), shards=1)
    save_picture(tmp_path / "images" / "4.png", seed=4)  # no longer the same dataset, so that it cannot go on
    planned = again(config(tmp_path, seed=1), hours=1)
    assert not planned.unfinished
    name = "tiny-2026-12-01T030000"
    assert whys(planned) == {
        **{f"{n}.png": ("reused", f"from {name}") for n in range(3)},
        "3.png": ("changed", f"{name} did not come to it"),
        "4.png": ("new", f"it is not in {name}"),
    }
    assert planned.before is not None
    assert planned.before.url.endswith("/tiny")


def test_where_the_earlier_run_is_gone_its_part_is_computed(first: tuple[Path, RunStore], caplog: pytest.LogCaptureFixture) -> None:
    folder, store = first
    save_picture(folder / "images" / "a" / "2.png", seed=22)
    planned = create_run(again(config(folder)))
    store.storage.fs.rm(store.url, recursive=True)
    with caplog.at_level(logging.WARNING):
        made, _ = work(planned)
    assert "was to be reused and is gone" in caplog.text
    same(made, work(plan_run(config(folder, name="fresh")))[0])


@pytest.fixture
def of_another_version(first: tuple[Path, RunStore]) -> Iterator[tuple[Path, RunStore]]:
    folder, store = first
    store.storage.write("run.json", json.dumps(store.metadata() | {"schema_version": 0}).encode())
    before = store.storage.read("run.json")
    yield folder, store
    assert store.storage.read("run.json") == before


def test_a_run_of_another_schema_version_is_left_alone(of_another_version: tuple[Path, RunStore], caplog: pytest.LogCaptureFixture) -> None:
    folder, store = of_another_version
    with caplog.at_level(logging.WARNING):
        planned = again(config(folder))
    assert planned.before is None
    assert planned.line().endswith("is the first run: all 7 images are explained")
    assert "has schema version 0, this is 1: nothing is reused from it" in caplog.text
    assert "leave --since out" in refused(lambda: again(config(folder), since=store.url))
    assert "no run of hdm" in refused(lambda: again(config(folder), since=str(folder)))


def test_a_worker_refuses_a_classifier_that_was_replaced_after_the_plan(first: tuple[Path, RunStore]) -> None:
    plan = make_plan(config(first[0]))
    worker = Worker(plan.config.model_copy(update={"seed": 1}), plan.weights_digest)
    assert "no longer those that the run began with" in refused(worker.ready)


def test_the_report_of_a_worker_in_an_actor_holds_the_lines_that_it_logged(tmp_path: Path) -> None:
    save_picture(tmp_path / "images" / "0.png")
    plan, _ = plan_run(config(tmp_path, methods=["eigen_cam"]))
    worker = WorkerActor(plan.config, plan.weights_digest)
    logging.getLogger("pipeline.runs").warning("away %d", 3)
    report = worker.begin(plan.shards[0], plan.samples) or worker.committed(0)
    assert (logging.WARNING, "away 3") in report.lines
    assert report.passes == worker.passes() == plan.passes


def test_names_sort_by_time() -> None:
    start = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert [next_name("cub", start + timedelta(seconds=n)) for n in (0, 1)] == ["cub-2026-12-31T235959", "cub-2027-01-01T000000"]


@pytest.mark.server
def test_the_command_says_what_it_would_do_and_why(first: tuple[Path, RunStore]) -> None:
    folder, store = first
    source = folder / "tiny.yaml"
    source.write_text(yaml.safe_dump(config(folder).model_dump(mode="json")))
    ended = hdm("reexplain", source, "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "run": store.url, "unchanged": True, "passes": 0, "new": 0, "changed": 0, "gone": 0, "reused": 7,
    }  # fmt: skip
    save_picture(folder / "images" / "a" / "2.png", seed=22)
    ended = hdm("reexplain", source, "--dry-run")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert "changed  a/2.png: the image has other contents" in lines
    assert "reused   a/4.png: from tiny" in lines
    assert "6 reused: from tiny" in ended.stderr
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["tiny"]
