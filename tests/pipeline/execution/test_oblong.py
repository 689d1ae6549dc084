"""Runs on inputs of 320 x 256 pixels, of one, three and five channels: every method and metric, the report, and drift."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from hdm_core import METHODS, METRICS, is_control
from hdm_core.metrics.registry import chosen_metrics
from pipeline import open_run
from pipeline.drift import compare, write_drift
from pipeline.execution.driver import explain_run, plan_run
from pipeline.report import write_report
from pipeline.runs import RunStore
from tests.support.bright_network import HEIGHT, PATCH, WIDTH, photograph
from tests.support.dicom_files import PATIENT, write_dicom
from tests.support.plans import configuration

FAST: dict[str, Any] = {
    "hdm": {"sizes": [4, 5], "steps": 6, "stages": 2, "mix_steps": 3},
    "dm": {"sizes": [4, 5], "steps": 6},
    "rise": {"masks": 300},
    "mask": {"steps": 12, "circles": 5},
    "integrated_gradients": {"steps": 4},
    "smooth_grad": {"samples": 6},
    "expected_gradients": {"samples": 20},
    "opti_cam": {"steps": 10},
    "igos_pp": {"steps": 6, "points": 3},
}
# Those of `methods: all`: the network is no transformer.
EXPLAINED = [name for name, method in METHODS.items() if not method.needs_attention]
GREY = {"channels": 1, "mean": [0.2], "std": [0.2]}
SIZES = [(400, 300), (300, 400), (350, 350)]


def run(folder: Path, root: Path, name: str, classifier: dict[str, Any], **keys: Any) -> RunStore:
    channels = classifier.get("channels", 3)
    config = configuration(
        name=name,
        dataset={"kind": "folder", "root": str(root)},
        classifier={
            "source": "import",
            "factory": "tests.support.bright_network:make",
            "arguments": {"channels": channels},
            "resize": [HEIGHT, WIDTH],
            **classifier,
        },
        compute={"executor": "local", "shard_size": 2, "batch_size": 2},
        output=str(folder / "runs"),
        **({"methods": "all", **FAST} | keys),
    )
    plan, store = plan_run(config)
    assert plan.size == (HEIGHT, WIDTH)
    assert plan.bytes == len(plan.samples) * (len(config.methods) + (plan.stages or 0)) * HEIGHT * WIDTH * 2
    summary = explain_run(plan, store)
    assert not summary.failed_shards
    return store


def salient(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the centre of the most salient hundredth of a map, (row, column)."""
    rows, columns = np.where(values >= np.quantile(values, 0.99))
    return rows.mean(), columns.mean()


def in_patch(point: tuple[float, float], margin: float = 12) -> bool:
    top, left, bottom, right = PATCH
    return top - margin <= point[0] < bottom + margin and left - margin <= point[1] < right + margin


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


@pytest.mark.slow
@pytest.mark.nightly
def test_all_methods_and_metrics_from_the_plan_to_the_drift(tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    for number, size in enumerate(SIZES):
        (root / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(*size, 3, number, deep=False)).save(root / "a" / f"{number}.png")
    store = run(tmp_path, root, "first", {"mean": [0.2] * 3, "std": [0.2] * 3})
    again = run(tmp_path, root, "second", {"mean": [0.21] * 3, "std": [0.2] * 3})
    opened = open_run(store.url)
    assert (opened.sizes["y"], opened.sizes["x"]) == (HEIGHT, WIDTH)
    records = store.records().to_pylist()
    assert len(records) == len(EXPLAINED) * len(SIZES)
    for record in records:
        assert (record["status"], record["error"]) == ("ok", None), record["method"]
        values = opened[record["method"]].sel(image=record["image_id"]).values.astype(np.float32)
        assert values.shape == (HEIGHT, WIDTH)
        assert is_control(record["method"]) or in_patch(salient(values)), record["method"]
        assert all(record[metric] is not None for metric in chosen_metrics(None) if not METRICS[metric].needs_region)
    assert [image["crop"] for image in store.images_with_facts().to_pylist()] == [[0, 0, *size] for size in SIZES]
    write_report(store)
    tiles = list((tmp_path / "runs/first/report/images").glob("*.jpg"))
    assert len(tiles) == len(SIZES) * (1 + len(EXPLAINED) + 2)
    assert set(map(size_of, tiles)) == {(WIDTH, HEIGHT)}
    bright = np.asarray(Image.open(tmp_path / "runs/first/report/images/000001-photograph.jpg").convert("L"))
    assert in_patch(salient(bright.astype(np.float32)))
    drift = compare(store, again)
    assert drift.images.same == len(SIZES)
    compared = drift.table.select(["method", "spearman"]).to_pylist()
    # Another normalisation changes an image's bytes, and with them its random map.
    assert min(row["spearman"] for row in compared if row["spearman"] is not None and row["method"] != "random_map") > 0.8
    write_drift(again, drift)
    assert set(map(size_of, (tmp_path / "runs/second/report/drift").glob("*.jpg"))) == {(WIDTH, HEIGHT)}


def grey_pngs(root: Path) -> None:
    for number, size in enumerate(SIZES[:2]):
        Image.fromarray(photograph(*size, 1, number)[:, :, 0]).save(root / f"{number}.png")


def dicoms(root: Path) -> None:
    pytest.importorskip("pydicom", reason="the extra `medical` is not installed")
    for number, size in enumerate(SIZES[:2]):
        write_dicom(root / f"{number}.dcm", photograph(*size, 1, number)[:, :, 0])


def tiffs(root: Path) -> None:
    for number, size in enumerate(SIZES[:1]):
        tifffile.imwrite(
            root / f"{number}.tif", photograph(*size, 5, number), planarconfig="contig", photometric="minisblack", metadata=None
        )


METHODS_OF_CHANNELS = {"methods": ["hdm", "rise", "grad_cam"], "hdm": {"sizes": [4], "steps": 4, "stages": 1}, "rise": {"masks": 20}}


@pytest.mark.parametrize(
    ("write", "classifier"),
    [
        (grey_pngs, GREY),
        (dicoms, {"channels": 1, "value_range": [-1024, 1024], "mean": [-600], "std": [400]}),
        (tiffs, {"channels": 5, "mean": [0.2] * 5, "std": [0.2] * 5}),
    ],
    ids=["png", "dicom", "tiff"],
)
def test_other_channels(tmp_path: Path, write: Any, classifier: dict[str, Any]) -> None:
    root = tmp_path / "photographs" / "a"
    root.mkdir(parents=True)
    write(root)
    Image.new("RGB", (50, 40)).save(root / "other.jpg")
    store = run(tmp_path, root.parent, "first", classifier, **METHODS_OF_CHANNELS)
    for record in store.records().to_pylist():
        if record["image_id"].endswith("other.jpg"):
            if classifier["channels"] == 5:
                assert (record["status"], record["error"]) == ("unreadable", "the image has 3 channels, and the network takes 5")
            continue
        assert (record["status"], record["error"]) == ("ok", None)
        values = np.asarray(open_run(store.url)[record["method"]].sel(image=record["image_id"]).values, np.float32)
        assert in_patch(salient(values)) or record["method"] == "rise", record["method"]  # 20 random masks are too few to find it
    write_report(store)
    shown = np.asarray(Image.open(tmp_path / "runs/first/report/images/000000-photograph.jpg"))
    assert shown.shape == (HEIGHT, WIDTH, 3)
    assert in_patch(salient(shown.mean(axis=2)))


def test_nothing_of_a_patient_is_in_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "photographs" / "a"
    root.mkdir(parents=True)
    dicoms(root)
    (root / "cut.dcm").write_bytes((root / "0.dcm").read_bytes()[:900])
    with caplog.at_level("DEBUG"):
        store = run(tmp_path, root.parent, "first", GREY, methods=["gradient"])
        write_report(store)
    errors = {record["error"] for record in store.records().to_pylist() if record["status"] != "ok"}
    assert len(errors) == 1
    everything = caplog.text.encode() + b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    for value in PATIENT.values():
        assert value.encode() not in everything, value
        for word in re.split(r"\W+", value):
            if len(word) > (4 if word.isdigit() else 3) and word not in ("Lane", "query", "allergic"):  # a digest has 2222 by chance
                assert word.encode() not in everything, word
