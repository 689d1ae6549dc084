"""Runs with `signed: true`: arrays, checks, xarray, page and reuse. Workers run in this process."""

from __future__ import annotations

import io
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from hdm_core import METHODS
from hdm_core.heatmap import diverging
from pipeline import open_run
from pipeline.config.schema import RunConfig
from pipeline.execution.driver import explain_run, plan_run
from pipeline.reexplain.plan import ReexplainPlan, create_run, plan_reexplain
from pipeline.report import write_report
from pipeline.runs import RunStore
from pipeline.runs.verify import verify
from tests.support.browser import text_of
from tests.support.plans import configuration, save_picture

RUN_METHODS = ["gradient", "input_x_gradient", "occlusion", "center"]
CLASSIFIER = {
    "source": "import",
    "factory": "hdm_core.testing.networks:smooth_network",
    "classes": ["a", "b", "c"],
    "resize": 16,
    "crop": 16,
}
SIGNED = ["gradient", "input_x_gradient", "occlusion"]


def config(folder: Path, **changes: Any) -> RunConfig:
    keys: dict[str, Any] = {
        "methods": RUN_METHODS,
        "occlusion": {"window": 0.5},
        "classifier": CLASSIFIER,
        "signed": True,
        "compute": {"executor": "local", "shard_size": 2, "batch_size": 1},
        "dataset": {"kind": "folder", "root": str(folder / "images")},
        "output": str(folder / "runs"),
    }
    return configuration(**{**keys, **changes})


def explained(config: RunConfig) -> RunStore:
    plan, store = plan_run(config)
    explain_run(plan, store)
    return store


def again(config: RunConfig, hours: int, since: str | None = None) -> tuple[ReexplainPlan, RunStore]:
    """The next run of a configuration, with its plan."""
    planned = plan_reexplain(config, since, now=datetime(2026, 12, 1, 3, tzinfo=UTC) + timedelta(hours=hours))
    plan, store = create_run(planned)
    explain_run(plan, store)
    return planned, store


def arrays(store: RunStore) -> dict[str, np.ndarray]:
    group = zarr.open_group(store.storage.zarr("maps.zarr"), mode="r")
    return {name: np.asarray(group[name][:]) for name in group}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three photographs, one of a single colour and a file that is none, and a finished run of them."""
    folder = tmp_path_factory.mktemp("signed")
    for number in range(3):
        save_picture(folder / "images" / f"{number}.png", seed=number)
    (folder / "images" / "broken.png").write_bytes(b"no image")
    explained(config(folder))
    return folder


@pytest.fixture(scope="module")
def store(made: Path) -> RunStore:
    return RunStore.open(str(made / "runs" / "tiny"))


def test_a_run_stores_signed_maps_of_the_methods_that_have_a_sign(store: RunStore) -> None:
    found = arrays(store)
    assert set(found) == {*RUN_METHODS, *(f"{name}_signed" for name in SIGNED)}
    for name in SIGNED:
        signed, maps = found[f"{name}_signed"], found[name]
        assert (signed.dtype, signed.shape) == (np.dtype("float16"), maps.shape)
        for row in range(3):
            assert np.abs(signed[row]).max() == 1
            assert signed[row].min() < 0 or name == "occlusion"
            values = signed[row].astype(np.float64) if name == "occlusion" else np.abs(signed[row].astype(np.float64))
            normalised = (values - values.min()) / (values.max() - values.min())
            np.testing.assert_allclose(normalised, maps[row], atol=2e-3)  # both are rounded to float16
        assert not signed[3].any(), "the file that is no image"


def test_metrics_are_those_of_a_run_without_signed_maps(made: Path, store: RunStore) -> None:
    plain = explained(config(made, name="plain", signed=False))
    assert set(arrays(plain)) == set(RUN_METHODS)
    ignored = ["run", "seconds"]
    assert plain.records().drop_columns(ignored).equals(store.records().drop_columns(ignored))
    assert "signed" not in plain.metadata()["identity"]


def test_verify_finds_a_damaged_signed_map(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "runs" / "tiny", tmp_path / "copy")
    copy = RunStore.open(str(tmp_path / "copy"))
    assert not verify(copy).damaged
    name = "maps.zarr/gradient_signed/c/1/0/0"
    copy.storage.write(name, b"x" + copy.storage.read(name)[1:])
    assert verify(copy).damaged == {1: [f"{name} does not match its checksum"]}


def test_xarray_has_them(store: RunStore) -> None:
    run = open_run(store.url)
    assert run.gradient_signed.dims == ("image", "y", "x")
    assert float(run.gradient_signed.sel(image="0.png").astype("float32").min()) < 0


def test_the_page_shows_them_with_diverging_colours(store: RunStore) -> None:
    write_report(store)
    page = store.storage.read("report/index.html").decode()
    block = page.partition("Signed maps: ")[2].partition('<div class="stages">')[0].partition("</article>")[0]
    assert [text_of(each) for each in re.findall(r"<b>([^<]*)</b>", block)] == [METHODS[name].title for name in SIGNED]
    assert page.count("Signed maps: ") == 3
    with Image.open(io.BytesIO(store.storage.read("report/images/000000-gradient_signed.png"))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(diverging(arrays(store)["gradient_signed"][0])))


def test_a_page_of_a_run_without_them_does_not_mention_them(made: Path) -> None:
    store = explained(config(made, name="unsigned", signed=False, methods=["gradient"]))
    write_report(store)
    assert "Signed maps" not in store.storage.read("report/index.html").decode()


def test_several_classes_per_image_have_signed_maps_of_every_rank(made: Path) -> None:
    found = arrays(explained(config(made, name="ranks", methods=["gradient"], target={"top": 2})))["gradient_signed"]
    assert found.shape[:2] == (4, 2)
    assert (np.abs(found[:3]).max((2, 3)) == 1).all()


def test_a_later_run_copies_signed_maps_and_explains_anew_where_there_are_none(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made / "images", folder / "images")
    explained(config(folder, signed=False))
    planned, second = again(config(folder), 0)
    assert planned.reuse is not None
    assert planned.reuse.count(RUN_METHODS, [(0, 3)]) == {**dict.fromkeys(SIGNED, 0), "center": 3}
    assert "signed" in planned.changes[1].why
    assert {*RUN_METHODS, *(f"{name}_signed" for name in SIGNED)} == set(arrays(second))

    save_picture(folder / "images" / "4.png", seed=9)
    planned, third = again(config(folder), 1)
    assert planned.reuse is not None
    assert planned.reuse.count(RUN_METHODS, [(0, 3)]) == dict.fromkeys(RUN_METHODS, 3)
    before, after = arrays(second), arrays(third)
    for name, values in before.items():
        np.testing.assert_array_equal(values[:3], after[name][:3])
    assert np.abs(after["gradient_signed"][3]).max() == 1, "the new image"

    _, fourth = again(config(folder, signed=False), 2, third.url)  # it may take the maps of a run that has more
    assert set(arrays(fourth)) == set(RUN_METHODS)
    np.testing.assert_array_equal(arrays(fourth)["gradient"], after["gradient"])
