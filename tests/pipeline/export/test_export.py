"""hdm export: what is written is read back, and nothing half-written passes for whole."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from typer.testing import CliRunner

from hdm_core.on_photograph import on_photograph
from pipeline import open_run
from pipeline.cli.main import app
from pipeline.errors import InputError, RunError
from pipeline.export import ExportSettings, export_run
from pipeline.export.names import file_name
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map
from pipeline.storage.objects import Storage
from tests.pipeline.conftest import Ended
from tests.support import report_runs
from tests.support.plans import refused
from tests.support.report_runs import PREPROCESS, stored_run

HOSTILE = "birds/<script>alert('1')</script>,\n\"quoted\"/" + "long" * 60 + ".jpg"


def rotated(path: Path, row: int) -> str:
    """Write a photograph that lies on its side, with EXIF's orientation 6; upright it has 48 x 30 pixels."""
    upright = np.random.default_rng(row).integers(0, 255, (30, 48, 3), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.rot90(upright)).save(path, exif=exif)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """Four images: one lies on its side, one has a hostile name, one a flat map, and one is gone since the run."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_runs, "photograph", rotated)
        run = stored_run(folder, 4, changes={(2, "hdm"): {"status": "flat"}}, names={1: HOSTILE})
    (folder / "3.png").unlink()
    return run


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_overlays_are_upright_and_the_manifest_leads_from_an_image_to_its_file(
    store: RunStore, tmp_path: Path, here: Callable[..., Ended]
) -> None:
    to = tmp_path / "out"
    ended = here("export", store.url, "overlays", "--to", to, "--json")
    assert ended.code == 3, "a photograph is gone, the rest is exported"
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("bird-3: not exported: cannot read")
    facts = json.loads(ended.out)
    assert (facts["matched"], facts["files"], facts["photographs_gone"]) == (8, 5, 1)
    assert facts["without_file"] == {"flat": 1, "no photograph": 2}
    rows = manifest(to)
    assert [(row["image_id"], row["method"]) for row in rows[:4]] == [
        (name, method) for name in ("bird-0", HOSTILE) for method in ("hdm", "grad_cam")
    ]
    assert {(row["status"], bool(row["file"])) for row in rows} == {("ok", True), ("flat", False), ("no photograph", False)}
    files = [row["file"] for row in rows if row["file"]]
    written = {path.relative_to(to).as_posix() for path in to.rglob("*") if path.is_file()}
    assert written == {*files, "manifest.csv", ".export.json"}
    upright = np.random.default_rng(0).integers(0, 255, (30, 48, 3), np.uint8)
    with Image.open(to / files[0]) as picture:
        assert picture.size == (48, 30)
        assert not picture.getexif()
        left, right = float(rows[0]["left"]), float(rows[0]["right"])
        assert 0 < left < right < 48
        assert (np.asarray(picture)[:, : int(left)] == upright[:, : int(left)]).all(), "the photograph itself, outside the crop"
        assert (np.asarray(picture)[:, 20:28] != upright[:, 20:28]).any()


def test_maps_are_read_back_as_they_are_in_the_run(store: RunStore, tmp_path: Path) -> None:
    crop = PREPROCESS.crop_box(48, 30)
    expected = on_photograph(read_map(store.storage.zarr("maps.zarr"), "grad_cam", 3), crop, (48, 30))
    only = {"methods": ("grad_cam",), "where": "row = 3"}
    for form in ("png", "tiff", "geojson"):
        summary = export_run(store, str(tmp_path / form), ExportSettings("maps", form, **only))  # type: ignore[arg-type]
        assert (summary.files, summary.gone) == (1, []), "a map alone needs no photograph"
    with Image.open(tmp_path / "tiff/grad_cam/000003-bird-3.tiff") as file:
        assert (file.mode, file.size) == ("F", (48, 30))
        np.testing.assert_array_equal(np.asarray(file), expected)
    with Image.open(tmp_path / "png/grad_cam/000003-bird-3.png") as file:
        assert file.mode.startswith("I;16")
        np.testing.assert_allclose(np.asarray(file) / 65535, np.nan_to_num(expected), atol=1 / 65535)
    found = json.loads((tmp_path / "geojson/grad_cam/000003-bird-3.geojson").read_text())
    assert found["type"] == "FeatureCollection"
    area = sum(feature["properties"]["area"] for feature in found["features"])
    assert area == pytest.approx((expected >= 0.5).sum(), rel=0.1)
    assert found["features"][0]["properties"] | {"area": 0} == {
        "image_id": "bird-3",
        "method": "grad_cam",
        "class": "Jenny wren",
        "name": "grad_cam 0.5",
        "level": 0.5,
        "area": 0,
    }
    small = export_run(store, str(tmp_path / "small"), ExportSettings("maps", "png", size=16, **only))  # type: ignore[arg-type]
    assert small.files == 1
    assert [(row["width"], row["height"]) for row in manifest(tmp_path / "small")] == [("16", "10")]


def test_an_interrupted_export_is_continued_and_only_exports_are_replaced(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, settings = tmp_path / "out", ExportSettings("maps", "png")
    write = Storage.write

    def full(storage: Storage, name: str, data: bytes) -> None:
        if "000002" in name:
            raise OSError(28, "No space left on device")
        write(storage, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", full)
        with pytest.raises(RunError, match="No space left"):
            export_run(store, str(to), settings)
    assert not (to / "manifest.csv").exists()
    assert not list(to.rglob("*.tmp"))
    assert "unfinished export of something else" in refused(lambda: export_run(store, str(to), ExportSettings()))
    summary = export_run(store, str(to), settings)
    assert (summary.files, summary.kept) == (7, 4)
    assert "--replace" in refused(lambda: export_run(store, str(to), settings))
    (to / "notes.txt").write_text("mine")
    nothing = export_run(store, str(to), ExportSettings(where="row > 99"), replace=True)
    assert (nothing.matched, nothing.url) == (0, "")
    assert (to / "manifest.csv").exists(), "what matches nothing replaces nothing"
    assert export_run(store, str(to), ExportSettings("maps", "tiff", ("hdm",)), replace=True).files == 3
    left = {path.relative_to(to).as_posix().rpartition(".")[2] for path in to.rglob("*") if path.is_file()}
    assert left == {"tiff", "csv", "json", "txt"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "photo.png").write_bytes(b"")
    assert "no export of hdm" in refused(lambda: export_run(store, str(other), settings, replace=True))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--where", "insertion_acu < 1"], "did you mean insertion_auc?"),
        (["--where", "status"], "not true or false"),
        (["--where", "row > 1; drop table records"], "syntax error"),
        (["--where", "true) union select (true"], "more than one expression"),
        (["--where", "(select count(*) from read_csv('/etc/passwd')) > 0"], "subquery"),
        (["--where", "sum(row) > 1"], "the function sum is not allowed"),
        (["--where", "class_name::int > 1"], "Could not convert"),
        (["--where", " "], "the condition is empty"),
        (["--methods", "gradcam"], "did you mean grad_cam?"),
        (["--size", "big"], "--size big"),
        (["--to", "nowhere://bucket"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line(store: RunStore, tmp_path: Path, here: Callable[..., Ended], arguments: list[str], part: str) -> None:
    ended = here("export", store.url, "overlays", "--to", tmp_path / "out", *arguments)
    (line,) = ended.err.strip().splitlines()
    assert ended.code == 2
    assert part in line
    assert not (tmp_path / "out").exists()


def test_a_condition_that_matches_nothing_ends_with_1(store: RunStore, tmp_path: Path, here: Callable[..., Ended]) -> None:
    ended = here("export", store.url, "maps", "--to", tmp_path / "out", "--where", "class_name = 'nobody'")
    assert (ended.code, ended.out.strip()) == (1, "no map matches; nothing was written")
    assert not (tmp_path / "out").exists()


def test_names_of_files_are_safe_and_unique() -> None:
    assert file_name(7, "wren/1.jpg", 0, ".png") == "000007-wren_1.png"
    assert file_name(7, "wren/1.jpg", 2, ".png") == "000007-wren_1.class-3.png"
    assert file_name(0, "../../etc/passwd", 0, ".png") == "000000-etc_passwd.png"
    assert file_name(1234567, "???", 0, ".png") == "1234567.png"
    for name in (HOSTILE, "é" * 255, "CON", "\u202egnp.exe"):
        safe = file_name(3, name, 0, ".geojson")
        assert len(safe.encode()) < 160
        assert not set(safe) & set("<>:\"/\\|?*\n'\u202e")


def test_a_run_in_python_gives_photographs_and_maps_on_them(store: RunStore) -> None:
    run = open_run(store.url)
    photograph = run.photograph("bird-0")
    assert photograph.size == (48, 30)
    full = run.on_photograph("bird-0", "grad_cam")
    assert full.shape == (30, 48)
    assert run.isel(image=[0]).overlay("bird-0", "grad_cam").size == (48, 30), "a selection keeps the photographs"
    shown = run.isel(image=[0, 1])._repr_html_()
    assert shown.count("<img") == 2
    assert "<script>alert" not in shown
    assert "<img" not in run._repr_html_(), "a photograph is gone: the table alone"
    with pytest.raises(InputError, match="did you mean bird-0"):
        run.photograph("bird0")
    with pytest.raises(InputError, match="did you mean grad_cam"):
        run.on_photograph("bird-0", "gradcam")


def test_an_export_without_a_form_is_one_line() -> None:
    result = CliRunner().invoke(app, ["export", "runs/demo"])
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == (
        "say what to write: overlays, maps, fiftyone or virelay, such as hdm export runs/demo overlays --to out"
    )
