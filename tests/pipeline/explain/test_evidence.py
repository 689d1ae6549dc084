"""Pieces of evidence of a run: configuration, records, arrays, plan, resume and reuse."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from hdm_core import Classifier, EvidenceSettings, Preprocess, find_evidence
from pipeline import open_run
from pipeline.config.schema import RunConfig
from pipeline.datasets.images import read_image
from pipeline.execution.driver import plan_run
from pipeline.execution.worker import Worker
from pipeline.explain import evidence as evidence_module
from pipeline.explain.results import ShardResult
from pipeline.explain.shard import explain_shard
from pipeline.plan import Plan, Shard, make_plan
from pipeline.reexplain.plan import create_run, plan_reexplain
from pipeline.runs import RunStore
from pipeline.runs.parts import encode_records
from pipeline.runs.records import RECORDS, from_parquet
from tests.pipeline.explain.test_shard import broken, photograph
from tests.support.plans import configuration, refused, save_picture
from tests.support.small_run import files
from tests.support.tiny_networks import smooth

SIDE = 16
SETTINGS = {
    "dm": {"sizes": [4], "max_size": 8, "steps": 2, "ensemble": []},
    "max_pieces": 2,
    "cells": 3,
    "bisections": 3,
    "score": "log_odds",
    "kept": 0.5,
}


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(smooth(3), Preprocess(resize=SIDE, crop=SIDE), ("ant", "bee", "cat"), "insects")


def config_of(methods: tuple[str, ...] = ("grad_cam", "hdm"), **changes: Any) -> RunConfig:
    return configuration({"compute.batch_size": 4}, methods=list(methods), **{"evidence": SETTINGS, **changes})


def work(classifier: Classifier, config: RunConfig, samples: list[Any]) -> ShardResult:
    return explain_shard(classifier, config, Shard(0, 0, len(samples)), samples)


def hdm_rows(result: ShardResult) -> list[dict[str, Any]]:
    return [record.to_row() for record in result.records if record.method == "hdm"]


# One shard


def test_the_records_of_hdm_and_an_array_have_what_find_evidence_finds(classifier: Classifier, tmp_path: Path) -> None:
    samples = [photograph(tmp_path, "0.png", 0), broken(tmp_path, "1.png"), photograph(tmp_path, "2.png", 2)]
    result = work(classifier, config_of(), samples)
    images = classifier.prepare([read_image(samples[row], {}).image for row in (0, 2)])
    expected = find_evidence(classifier, images, settings=EvidenceSettings.model_validate(SETTINGS), batch=4)
    assert any(expected.pieces)
    assert result.arrays["evidence"].dtype == bool
    assert result.arrays["evidence"].shape == (3, 2, SIDE, SIDE)
    np.testing.assert_array_equal(result.arrays["evidence"][[0, 2]], expected.masks(2).numpy())
    assert not result.arrays["evidence"][1].any()
    first, unreadable, last = hdm_rows(result)
    for number, row in enumerate((first, last)):
        assert row["status"] == "ok"
        assert row["insertion_auc"] is not None, "the map is measured as without the search"
        assert row["evidence_status"] == expected.status[number]
        assert row["evidence_count"] == len(expected.pieces[number])
        assert row["evidence_area"] == pytest.approx(float(expected.masks(2)[number].any(0).double().mean()))
        assert row["evidence_comprehensiveness"] == expected.comprehensiveness[number]
        assert row["evidence_sufficiency"] == [piece.sufficiency for piece in expected.pieces[number]]
        assert row["evidence_necessity"] == [piece.necessity for piece in expected.pieces[number]]
        assert row["evidence_passes"] == expected.passes[number]
    assert unreadable.get("evidence_status") is None
    assert all(record.evidence is None for record in result.records if record.method == "grad_cam")


def test_all_else_is_as_without_the_search(classifier: Classifier, tmp_path: Path) -> None:
    samples = [photograph(tmp_path, f"{number}.png", number) for number in range(2)]
    with_search, without = (work(classifier, config_of(evidence=each), samples) for each in (SETTINGS, None))
    assert set(with_search.arrays) - set(without.arrays) == {"evidence"}
    for name, array in without.arrays.items():
        np.testing.assert_array_equal(array, with_search.arrays[name])
    for one, other in zip(with_search.records, without.records, strict=True):
        rows = [{k: v for k, v in record.to_row().items() if not k.startswith("evidence_") and k != "seconds"} for record in (one, other)]
        assert rows[0] == rows[1]
        assert other.evidence is None


def test_columns_are_null_where_nothing_was_searched_and_come_back_where_it_was(classifier: Classifier, tmp_path: Path) -> None:
    result = work(classifier, config_of(), [photograph(tmp_path, "0.png", 0)])
    table = from_parquet([encode_records(result.records)["records"]], RECORDS)
    cam, hdm = table.to_pylist()
    assert {name: value for name, value in cam.items() if name.startswith("evidence_") and value is not None} == {}
    assert type(result.records[1]).from_row(hdm).evidence is not None
    assert type(result.records[0]).from_row(cam).evidence is None


def test_several_classes_per_image_have_evidence_each(classifier: Classifier, tmp_path: Path) -> None:
    config = config_of(target={"top": 2})
    result = work(classifier, config, [photograph(tmp_path, "0.png", 0)])
    assert result.arrays["evidence"].shape == (1, 2, 2, SIDE, SIDE)
    rows = hdm_rows(result)
    assert [row["rank"] for row in rows] == [0, 1]
    assert all(row["evidence_status"] for row in rows)
    for row in rows:
        assert result.arrays["evidence"][0, row["rank"]].any((1, 2)).sum() == row["evidence_count"]


def test_a_contrast_is_searched_for_the_difference(classifier: Classifier, tmp_path: Path) -> None:
    samples = [photograph(tmp_path, "0.png", 0)]
    (row,) = hdm_rows(work(classifier, config_of(target="runner_up"), samples))
    images = classifier.prepare([read_image(samples[0], {}).image])
    expected = find_evidence(classifier, images, settings=EvidenceSettings.model_validate(SETTINGS), contrast="runner_up", batch=4)
    assert row["evidence_sufficiency"] == [piece.sufficiency for piece in expected.pieces[0]]


def test_a_search_that_fails_is_the_error_of_its_map_alone(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [photograph(tmp_path, f"{number}.png", number) for number in range(3)]
    second = classifier.prepare([read_image(samples[1], {}).image])[0]

    def failing(network: Classifier, images: Any, *arguments: Any, **options: Any) -> Any:
        if any((image == second).all() for image in images):
            raise RuntimeError("lost\ntrack")
        return find_evidence(network, images, *arguments, **options)

    monkeypatch.setattr(evidence_module, "find_evidence", failing)
    result = work(classifier, config_of(), samples)
    first, failed, last = hdm_rows(result)
    assert (failed["status"], failed["error"]) == ("failed", "RuntimeError: lost track (while its evidence was searched)")
    assert not result.arrays["hdm"][1].any()
    assert first["evidence_status"] is not None
    assert last["evidence_status"] is not None
    assert [record.status for record in result.records if record.method == "grad_cam"] == ["ok"] * 3


# A run


def run_config(folder: Path, **changes: Any) -> RunConfig:
    for number in range(3):
        save_picture(folder / "images" / f"{number}.png", seed=number)
    data = {"kind": "folder", "root": str(folder / "images")}
    return config_of(("hdm",), **{"dataset": data, "output": str(folder / "runs"), **changes})


def run(config: RunConfig, shards: int | None = None) -> tuple[RunStore, int]:
    plan, store = plan_run(config)
    return finish(plan, store, shards)


def finish(plan: Plan, store: RunStore, shards: int | None = None) -> tuple[RunStore, int]:
    reuse, worker = store.reuse(), Worker(plan.config, plan.weights_digest)
    for shard in [shard for shard in plan.shards if shard.index not in store.done()][:shards]:
        rows = None if reuse is None else reuse.rows(shard.start, shard.stop)
        worker.run(shard, plan.samples[shard.start : shard.stop], None, rows)
    store.write_image_facts()
    return store, worker.passes() or 0


def test_a_run_stores_plans_and_resumes_its_evidence_to_the_same_bytes(tmp_path: Path) -> None:
    config = run_config(tmp_path)
    plan = make_plan(config)
    store, passes = run(config)
    records = store.records().to_pylist()
    assert any(row["evidence_count"] for row in records)
    assert passes == sum(row["passes"] + row["evidence_passes"] for row in records) <= plan.passes
    facts = plan.as_dict()
    assert facts["evidence_passes_per_image"] == plan.evidence_passes == store.metadata()["evidence_passes_per_image"]
    assert facts["bytes"] == 3 * 32 * 32 * (2 * 3 + 2), "a map and two stages as float16, two pieces as bool"
    array = zarr.open_group(store.storage.zarr("maps.zarr"), mode="r")["evidence"]
    assert isinstance(array, zarr.Array)
    assert (array.dtype, array.shape, array.chunks) == (np.dtype(bool), (3, 2, 32, 32), (1, 2, 32, 32))
    assert array.metadata.dimension_names == ("image", "piece", "y", "x")

    data = open_run(store.url)
    assert data.evidence.dims == ("image", "piece", "y", "x")
    assert data.evidence.dtype == bool
    for number, row in enumerate(records):
        assert int(data.evidence[number].any(("y", "x")).sum()) == row["evidence_count"]
        assert float(data.evidence[number].sum()) / 32**2 == pytest.approx(row["evidence_area"])
        assert data.evidence_count.values[number, 0] == row["evidence_count"]

    again = run_config(tmp_path, output=str(tmp_path / "resumed"))
    run(again, shards=1)
    resumed, _ = run(again)
    one, other = (files(Path(each.url), "maps.zarr") for each in (store, resumed))
    assert one == other
    tables = [each.records().drop_columns(["seconds"]) for each in (store, resumed)]
    assert tables[0].equals(tables[1])


def test_evidence_is_reused_with_the_maps_and_not_under_other_settings(tmp_path: Path) -> None:
    store, _ = run(run_config(tmp_path))
    save_picture(tmp_path / "images" / "3.png", seed=3)
    planned = plan_reexplain(run_config(tmp_path), now=datetime(2030, 1, 2, tzinfo=UTC))
    assert planned.counts == {"new": 1, "changed": 0, "gone": 0, "reused": 3}
    assert planned.passes == planned.plan.passes // 4
    second, passes = finish(*create_run(planned))
    new = second.records().to_pylist()[3]
    assert passes == new["passes"] + new["evidence_passes"]
    arrays = [zarr.open_group(each.storage.zarr("maps.zarr"), mode="r")["evidence"][:3] for each in (store, second)]
    np.testing.assert_array_equal(*arrays)
    columns = [name for name in RECORDS.names if name.startswith("evidence_")]
    assert second.records().slice(0, 3).select(columns).equals(store.records().select(columns))
    shutil.rmtree(second.url)

    for changed in ({**SETTINGS, "kept": 0.6}, None):
        other = plan_reexplain(run_config(tmp_path, evidence=changed), now=datetime(2030, 1, 2, tzinfo=UTC))
        assert other.counts["reused"] == 0
        assert any("evidence" in change.why for change in other.changes)


def test_a_run_without_the_search_has_neither_array_nor_numbers(tmp_path: Path) -> None:
    config = run_config(tmp_path, evidence=None)
    store, _ = run(config)
    assert "evidence" not in zarr.open_group(store.storage.zarr("maps.zarr"), mode="r")
    assert "evidence_passes_per_image" not in store.metadata()
    assert "evidence_passes_per_image" not in make_plan(config).as_dict()
    stored = pq.read_table(Path(store.url) / "records" / "part-000000.parquet")
    assert all(stored[name].null_count == len(stored) for name in stored.column_names if name.startswith("evidence_"))
    assert np.isnan(open_run(store.url).evidence_count.values).all()


# The configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evidence": {"kept": 2}}, "evidence.kept"),
        ({"evidence": {"keep": 0.9}}, "evidence.keep: unknown"),
        ({"evidence": {"preset": "quick"}}, "evidence: unknown preset 'quick' of dm"),
        ({"evidence": {"dm": {"stepz": 3}}}, "dm has no setting 'stepz'; did you mean steps?"),
        ({"evidence": {"areas": [0.4, 0.2]}}, "evidence.areas: the shares must rise"),
        (
            {"evidence": {"dm": {"baseline": "auto"}}},
            "evidence.dm.baseline: auto is chosen per image; name one of mean, black, blur and noise",
        ),
        ({"evidence": 6}, "evidence: "),
        ({"evidence": {}, "methods": ["grad_cam"]}, "evidence: its numbers are in the records of hdm: add hdm to methods"),
    ],
)
def test_a_bad_section_is_one_line(changes: dict[str, Any], message: str) -> None:
    assert message in refused(lambda: configuration(**changes))


def test_masks_larger_than_the_image_are_refused_by_the_plan(tmp_path: Path) -> None:
    config = run_config(tmp_path, evidence={"dm": {"sizes": [40], "max_size": 48}})
    assert refused(lambda: make_plan(config)).startswith("evidence: mask size 40 is not between 1 and the image's side 32")
