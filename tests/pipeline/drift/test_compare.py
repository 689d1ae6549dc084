"""Two stored runs compared: images, numbers, limits, and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hdm_core import METRICS
from hdm_core.metrics.registry import chosen_metrics, metrics_on_request
from hdm_core.similarity import overlap, spearman, ssim
from pipeline.cli.main import main
from pipeline.drift import Drift, compare, write_drift
from pipeline.drift.schema import DRIFT
from pipeline.drift.summary import QUANTITIES, rank_by_drift, rank_flipped
from pipeline.monitoring.progress import Progress
from pipeline.plan import Shard
from pipeline.runs import RunStore
from pipeline.runs.maps import open_array
from pipeline.runs.verify import verify
from pipeline.tables.bootstrap import Estimate
from tests.support.drift_runs import IMAGES, Arrays, Facts, Records, edit_rows, stored_run
from tests.support.plans import files_below, refused
from tests.support.s3_server import S3


def inverted(shard: Shard, arrays: Arrays, records: Records, facts: Facts) -> None:
    """Invert the values of every map."""
    for array in arrays.values():
        array[:] = 1 - array


def one(drift: Drift, quantity: str, class_name: str | None = None, method: str = "hdm") -> Estimate:
    (found,) = (s.estimate for s in drift.statistics if (s.method, s.class_name, s.quantity) == (method, class_name, quantity))
    return found


# Numbers


def test_a_run_compared_with_itself_has_not_changed(tmp_path: Path) -> None:
    store = stored_run(tmp_path, "a")
    drift = compare(store, store)
    assert drift.table.schema.equals(DRIFT, check_metadata=True)
    assert len(drift.table) == 2 * IMAGES
    same = {"flips": 0.0, "spearman": 1.0, "ssim": 1.0, "overlap": 1.0, "drift": 0.0, "probability": 0.0}
    assert {found.estimate.n for found in drift.statistics if found.quantity in metrics_on_request()} == {0}
    for found in (each for each in drift.statistics if each.quantity not in metrics_on_request()):
        value = same.get(found.quantity, 0.0)
        assert (found.estimate.mean, found.estimate.low, found.estimate.high) == (value, value, value), found
        assert found.estimate.n == (IMAGES if found.class_name is None else IMAGES // 2)
        assert found.estimate.p == (1.0 if QUANTITIES[found.quantity].endswith("_change") else None)
    assert rank_by_drift(drift.table) == list(range(IMAGES))
    assert rank_flipped(drift.table) == []


def test_every_number_of_an_image(tmp_path: Path) -> None:
    changes = {1: {"target": 0, "target_name": "a", "probability": 0.5}, 2: {"region": "bbox"}}

    def change(*shard: Any) -> None:
        edit_rows(changes)(*shard)
        if shard[0].index:
            inverted(*shard)

    before, after = stored_run(tmp_path, "a"), stored_run(tmp_path, "b", change)
    drift = compare(before, after)
    rows = {(row["row_after"], row["method"]): row for row in drift.table.to_pylist()}
    assert [row["flipped"] for row in rows.values()] == [False, False, True, True] + [False] * 8
    assert rows[1, "hdm"]["target_name_before"], rows[1, "hdm"]["target_name_after"] == ("b", "a")
    assert rows[1, "hdm"]["probability_change"] == -0.25
    assert rows[2, "hdm"]["proportion_change"] is None, "a box and no region cannot be compared"
    assert rows[3, "hdm"]["proportion_change"] == 0
    for method in ("hdm", "grad_cam"):
        old, new = (open_array(store.storage.zarr("maps.zarr"), method)[:] for store in (before, after))
        likeness = zip(spearman(old, new), ssim(old, new), overlap(old, new), strict=True)
        for row, expected in enumerate(likeness):
            found = rows[row, method]
            assert [found[name] for name in ("spearman", "ssim", "overlap")] == pytest.approx(expected)
            assert found["drift"] == pytest.approx((1 - expected[2] + (1 - expected[0]) / 2) / 2)
            assert found["drift"] == 0 if row < 2 else found["drift"] > 0.9
    assert (one(drift, "flips").mean, one(drift, "flips").n) == (pytest.approx(1 / IMAGES), IMAGES)
    assert one(drift, "proportion").n == IMAGES - 1
    assert {found.class_name for found in drift.statistics} == {None, "a", "b"}
    assert set(rank_by_drift(drift.table)[:4]) == {2, 3, 4, 5}
    assert rank_by_drift(drift.table)[4:] == [1, 0], "of images that drifted alike the flipped one comes first"
    assert rank_flipped(drift.table) == [1]


def test_metrics_that_were_measured_differently_are_not_compared(tmp_path: Path) -> None:
    drift = compare(stored_run(tmp_path, "a"), stored_run(tmp_path, "b", metrics={"protocol": "rise"}))
    assert {metric for metric in METRICS if one(drift, metric).n} == {"proportion"}, "the one that reads maps alone"
    assert [line for line in drift.differences if "protocol" in line] == ["metrics.protocol ('paper', now 'rise')"]


def test_runs_that_measured_different_metrics_are_compared_in_those_of_both(tmp_path: Path) -> None:
    drift = compare(stored_run(tmp_path, "a"), stored_run(tmp_path, "b", metrics={"names": ["paper", "srg"]}))
    assert {metric for metric in METRICS if one(drift, metric).n} == set(chosen_metrics(None))


def test_maps_that_say_nothing_are_counted_and_not_compared(tmp_path: Path) -> None:
    nothing = dict.fromkeys(chosen_metrics(None))
    bad = {
        0: {"status": "flat", **nothing},
        1: {"status": "nan", **nothing},
        2: {"status": "failed", "target": None, "target_name": None, "probability": None, "region": "none", **nothing},
    }
    flat = edit_rows({2: {"status": "flat", **nothing}})
    drift = compare(stored_run(tmp_path, "a", flat), stored_run(tmp_path, "b", edit_rows(bad)))
    rows = drift.table.to_pylist()
    assert [row["status"] for row in rows[::2]] == ["flat", "nan", "failed", "ok", "ok", "ok"]
    assert all(row[name] is None for row in rows[:6] for name in ("spearman", "ssim", "overlap", "drift", "deletion_auc_change"))
    assert (one(drift, "drift").n, one(drift, "flips").n) == (3, 5)
    assert rank_by_drift(drift.table) == [3, 4, 5]


# Which images


def test_images_are_joined_by_name_and_content(tmp_path: Path) -> None:
    """Before: 0 to 5. After: 2 to 7, so in other rows, and 3 has another content."""
    after = stored_run(tmp_path, "b", edit_rows({}, {1: {"sha256": "f" * 64}}), first=2)
    drift = compare(stored_run(tmp_path, "a"), after)
    counts = drift.images
    assert (counts.same, counts.changed, counts.gone, counts.new, counts.waiting) == (3, 1, 2, 2, 0)
    rows = drift.table.to_pylist()[::2]
    assert [(row["image_id"], row["row_before"], row["row_after"]) for row in rows] == [("2.png", 2, 0), ("4.png", 4, 2), ("5.png", 5, 3)]
    assert [row["spearman"] for row in rows] == [1, 1, 1], "an image's own maps"


def test_what_both_have_done_so_far_is_compared(tmp_path: Path) -> None:
    drift = compare(stored_run(tmp_path, "a", committed=2), stored_run(tmp_path, "b", committed=1))
    assert (drift.images.same, drift.images.waiting) == (2, 4)
    assert (drift.images.done_before, drift.images.done_after) == (4, 2)
    assert len(drift.table) == 4
    nothing = refused(lambda: compare(stored_run(tmp_path, "c", committed=0), stored_run(tmp_path, "d")))
    assert "of 6 images in both, none is done in both yet" in nothing


def test_of_several_classes_per_image_the_most_probable_is_compared(tmp_path: Path) -> None:
    def change(shard: Shard, arrays: Arrays, records: Records, facts: Facts) -> None:
        for name, array in arrays.items():
            arrays[name] = np.stack([array, 1 - array], axis=1)
        edit_rows({1: {"status": "flat"}})(shard, arrays, records, facts)
        records += [replace(record, rank=1, target=0, target_name="a") for record in records]

    whole = {"compute": {"shard_size": IMAGES}}  # its maps are read around the flat one
    drift = compare(stored_run(tmp_path, "a", **whole), stored_run(tmp_path, "b", change, target={"top": 2}, **whole))
    assert (one(drift, "spearman").mean, one(drift, "flips").mean, one(drift, "drift").n) == (1, 0, IMAGES - 1)


def test_only_methods_of_both_are_compared(tmp_path: Path) -> None:
    drift = compare(stored_run(tmp_path, "a"), stored_run(tmp_path, "b", methods=["grad_cam", "gradient"]))
    assert drift.methods == ["grad_cam"]
    assert len(drift.table) == IMAGES


def test_maps_that_are_missing_are_not_compared(tmp_path: Path) -> None:
    after = stored_run(tmp_path, "b")
    (Path(after.url) / "maps.zarr/hdm/c/1/0/0").unlink()
    drift = compare(stored_run(tmp_path, "a"), after)
    assert {name: one(drift, name).n for name in ("drift", "spearman", "ssim", "overlap")} == dict.fromkeys(
        ("drift", "spearman", "ssim", "overlap"), IMAGES - 2
    )


def test_progress_is_reported(tmp_path: Path) -> None:
    store, reported = stored_run(tmp_path, "a"), []
    compare(store, store, reported.append)
    assert reported == [Progress(done, 12, "maps") for done in range(2, 13, 2)]


# Bad input


def made(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Changes run.json."""

    def do(run: Path) -> None:
        info = json.loads((run / "run.json").read_text())
        change(info)
        (run / "run.json").write_text(json.dumps(info))

    return do


def newer(run: Path) -> None:
    made(lambda info: info.update(schema_version=9))(run)


def damaged(run: Path) -> None:
    (run / "records/part-000001.parquet").unlink()


@pytest.mark.parametrize(
    ("keys", "spoil", "expected"),
    [
        ({"first": 100}, None, "no image_id is in both, of 6 and 6; give two runs on one dataset"),
        ({"side": 16}, None, "maps of 12 x 12 and of 16 x 16 pixels"),
        ({"methods": ["gradient"]}, None, "no method is in both runs"),
        ({"target": "label"}, None, "explains the class 'predicted'"),
        ({"change": edit_rows({}, {row: {"sha256": "e" * 64} for row in range(6)})}, None, "all 6 images in both have changed"),
        ({"change": edit_rows({}, {3: {"crop": (0.0, 0.0, 20.0, 20.0)}})}, None, "different crops of 3.png, 2 0 22 20 and then 0 0 20 20"),
        ({}, newer, "has schema version 9, and this hdm reads 1"),
        ({}, damaged, "`hdm verify` lists the damage"),
        ({}, shutil.rmtree, "no run of hdm"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_nothing_is_written(
    keys: dict[str, Any],
    spoil: Callable[[Path], None] | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, after = (Path(stored_run(tmp_path, name, **more).url) for name, more in (("a", {}), ("b", keys)))
    if spoil:
        spoil(after)
    files = files_below(tmp_path)
    code, out, err = hdm(monkeypatch, capsys, before, after)
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert expected in line
    assert files_below(tmp_path) == files


def hdm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run `hdm diff ...` in this process."""
    monkeypatch.setattr("sys.argv", ["hdm", "diff", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return (int(ended.value.code or 0), *capsys.readouterr())


# Where it is written


def test_the_command_prints_and_fails_beyond_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = stored_run(tmp_path, "a"), stored_run(tmp_path, "b", inverted)
    held = files_below(tmp_path / "a")
    code, out, err = hdm(monkeypatch, capsys, before.url, after.url, "--limit", "flips=0.5")
    assert (code, err) == (0, "")
    assert "6 images" in out
    assert "overlap" in out
    code, out, err = hdm(monkeypatch, capsys, before.url, after.url, "--limit", "spearman=0.5", "--limit", "flips=0.5", "--json")
    assert code == 1
    facts = json.loads(out)
    assert facts["images"]["same"] == IMAGES
    assert [line.split(":")[0] for line in facts["exceeded"]] == ["hdm", "grad_cam"]
    assert [line.startswith("limit exceeded: ") for line in err.strip().splitlines()] == [True, True]
    (found,) = (s for s in facts["statistics"] if (s["method"], s["class_name"], s["quantity"]) == ("hdm", None, "spearman"))
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((-1, -1, -1), abs=1e-5)
    unnamed = {f"{name}_change" for name in metrics_on_request()}
    assert pq.read_schema(facts["drift"]).equals(pa.schema([column for column in DRIFT if column.name not in unnamed]))
    assert not {statistic["quantity"] for statistic in facts["statistics"]} & set(metrics_on_request())
    assert Path(facts["page"]) == tmp_path / "b/report/drift.html"
    assert files_below(tmp_path / "a") == held, "the run before is only read"


def test_the_run_after_stays_what_it_was(tmp_path: Path) -> None:
    before, after = stored_run(tmp_path, "a"), stored_run(tmp_path, "b", committed=2)
    done = after.done()
    write_drift(after, compare(before, after))
    assert not verify(after).damaged
    assert after.done() == done
    again = stored_run(tmp_path, "b")
    assert len(again.done()) == 3, "the run resumes"
    assert json.loads(pq.read_schema(f"{after.url}/drift.parquet").metadata[b"hdm.drift"])["images"]["same"] == 4


def test_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = stored_run(tmp_path, "a"), stored_run(tmp_path, "b")
    held = files_below(tmp_path / "b")
    code, _, err = hdm(monkeypatch, capsys, before.url, after.url, "--out", tmp_path / "kept")
    assert (code, err) == (0, "")
    assert files_below(tmp_path / "b") == held
    assert {"drift.parquet", "report/drift.html"} <= files_below(tmp_path / "kept")
    (tmp_path / "file").write_text("")
    code, out, err = hdm(monkeypatch, capsys, before.url, after.url, "--out", tmp_path / "file")
    assert (code, out) == (2, "")
    assert "cannot be written" in err
    code, out, err = hdm(monkeypatch, capsys, before.url, after.url, "--out", "nowhere://x")
    assert (code, out) == (2, "")
    assert "--out nowhere://x" in err


def test_runs_on_an_object_store(s3: S3, tmp_path: Path) -> None:
    before, after = (stored_run(s3.url, name, inverted if name == "b" else None, storage=s3.storage) for name in ("a", "b"))
    opened = [RunStore.open(store.url, s3.storage) for store in (before, after)]
    drift = compare(*opened)
    page = write_drift(opened[1], drift)
    assert page == f"{after.url}/report/drift.html"
    local = compare(stored_run(tmp_path, "a"), stored_run(tmp_path, "b", inverted))
    assert drift.table.drop_columns(["row_before"]).equals(local.table.drop_columns(["row_before"]))
    names = {path.rpartition("/b/")[2] for path in s3.files().find(after.url)}
    assert {"drift.parquet", "report/drift.html"} <= names
