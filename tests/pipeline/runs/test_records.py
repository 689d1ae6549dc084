"""Parquet files of a run, column by column: other programs read them."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hdm_core import METRICS, MetricSettings
from hdm_core.metrics.registry import chosen_metrics, metrics_on_request
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.runs.images import FACTS, IMAGES, with_facts
from pipeline.runs.parts import encode_records
from pipeline.runs.records import CURVES, RECORDS, Record, from_parquet, to_parquet
from pipeline.tables.aggregate import TABLES, aggregate
from tests.support.plans import results

SCHEMAS: dict[str, dict[str, str]] = {
    "records/part-000000.parquet": {
        "run": "string",
        "shard": "int32",
        "row": "int64",
        "image_id": "string",
        "method": "string",
        "rank": "int32",
        "status": "string",
        "error": "string",
        "target": "int32",
        "target_name": "string",
        "contrast": "int32",
        "label": "int32",
        "probability": "float",
        "logit": "float",
        "average_drop_80": "float",
        "average_drop_70": "float",
        "increase_80": "float",
        "increase_70": "float",
        "deletion_auc": "float",
        "insertion_auc": "float",
        "proportion": "float",
        "region": "string",
        "passes": "int64",
        "seconds": "float",
        "stage_weights": "list<element: float>",
        "seed": "int64",
        "device": "string",
        "reused_from": "string",
        "baseline": "string",
        "baseline_probability": "double",
        "no_contrast": "bool",
        "metrics_baseline_probability": "double",
        "metrics_no_contrast": "bool",
        "metrics_baseline": "string",
        "evidence_status": "string",
        "evidence_count": "int32",
        "evidence_area": "float",
        "evidence_comprehensiveness": "float",
        "evidence_sufficiency": "list<element: float>",
        "evidence_necessity": "list<element: float>",
        "evidence_passes": "int64",
    },
    "curves/part-000000.parquet": {
        "row": "int64",
        "method": "string",
        "rank": "int32",
        "deletion": "list<element: float>",
        "insertion": "list<element: float>",
    },
    "images.parquet": {
        "row": "int64",
        "image_id": "string",
        "path": "string",
        "sha256": "string",
        "truth_sha256": "string",
        "label": "int32",
        "class_name": "string",
        "split": "string",
        "width": "int32",
        "height": "int32",
        "crop": "fixed_size_list<element: float>[4]",
    },
    "tables.parquet": {
        "method": "string",
        "metric": "string",
        "mean": "double",
        "std": "double",
        "ci95": "double",
        "n": "int64",
        "n_flat": "int64",
        "n_failed": "int64",
        "n_no_contrast": "int64",
        "n_metrics_no_contrast": "int64",
        "baseline": "string",
    },
    "statistics.parquet": {
        "method": "string",
        "reference": "string",
        "metric": "string",
        "n": "int64",
        "n_unpaired": "int64",
        "difference": "double",
        "low": "double",
        "high": "double",
        "p": "double",
        "p_holm": "double",
        "wins": "int64",
        "ties": "int64",
        "losses": "int64",
        "effect_size": "double",
        "n_needed": "int64",
    },
}


# What a run with default settings writes.
WRITTEN = pa.schema([column for column in RECORDS if column.name not in metrics_on_request()], metadata=RECORDS.metadata)

MINIMAL = Record(run="tiny", shard=2, row=0, image_id="0.png", label=None, method="hdm", status="failed", seed=0, device="cpu")


def parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Encode rows with pyarrow alone."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, compression="zstd")
    return sink.getvalue()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_columns_are_those_of_the_contract(run: Path, name: str) -> None:
    schema = pq.read_schema(run / name)
    assert {field.name: str(field.type).replace("item:", "element:") for field in schema} == SCHEMAS[name]
    assert schema.names == list(SCHEMAS[name])
    assert schema.metadata[b"hdm.schema_version"] == b"1"


def test_the_metrics_are_columns() -> None:
    assert [name for name in RECORDS.names if name in METRICS] == list(METRICS)


def test_records_come_back_as_they_were_written(run: Path, plan: Plan) -> None:
    stored = pq.read_table(run / "records/part-000001.parquet").to_pylist()
    written = [record.to_row() for record in results(plan, plan.shards[1])[1]]
    assert len(stored) == len(written) == 4
    for left, right in zip(stored, written, strict=True):
        assert left["error"] is None
        for name in set(WRITTEN.names) - set(METRICS):
            assert left[name] == right[name], name
        for name in chosen_metrics(None):
            assert left[name] == pytest.approx(right[name], rel=1e-6)


def test_a_record_read_back_is_the_record_that_was_written(run: Path, plan: Plan) -> None:
    table = pq.read_table(run / "records/part-000000.parquet")
    rows, records = table.to_pylist(), results(plan, plan.shards[0])[1]
    curves = {"deletion": [1.0, 0.5, 0.25], "insertion": [0.25, 0.5, 1.0]}
    for row, record in zip(rows, records, strict=True):
        metrics = {name: pytest.approx(value, rel=1e-6) for name, value in record.metrics.items()}
        assert Record.from_row(row | curves) == replace(record, metrics=metrics)
        assert Record.from_row(row).deletion is None


def test_a_record_has_exactly_the_columns_of_the_files() -> None:
    assert set(MINIMAL.to_row()) | set(METRICS) == set(RECORDS.names) | set(CURVES.names)


def test_a_record_has_no_other_column_and_no_other_metric() -> None:
    with pytest.raises(TypeError):
        replace(MINIMAL, probabilty=0.5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="no such metric: deletion_auk"):
        replace(MINIMAL, metrics={"deletion_auk": 0.5})


def test_records_are_the_bytes_of_rows_with_only_the_columns_that_have_a_value() -> None:
    """Files keep the bytes of versions that had dicts, in which a column without a value was a missing key."""
    metrics = dict.fromkeys(chosen_metrics(None), 0.5) | {"proportion": None}
    measured = {"target": 1, "target_name": "b", "probability": 0.75, "logit": 2.5, "seconds": 0.1, "stage_weights": [0.75, 0.25]}
    curves = {"deletion": [1.0, 0.5], "insertion": [0.5, 1.0]}
    records = [MINIMAL, replace(MINIMAL, row=1, status="ok", label=3, passes=7, metrics=metrics, **measured, **curves)]
    common = {"run": "tiny", "shard": 2, "image_id": "0.png", "method": "hdm", "rank": 0, "seed": 0, "device": "cpu", "region": "none"}
    rows: list[dict[str, Any]] = [
        {**common, "row": 0, "status": "failed", "label": None, "passes": 0},
        {**common, "row": 1, "status": "ok", "label": 3, "passes": 7, **metrics, **measured, **curves},
    ]
    assert encode_records(records) == {"records": parquet(rows, WRITTEN), "curves": parquet(rows[1:], CURVES)}


def test_a_metric_on_request_has_a_column_where_the_settings_name_it() -> None:
    record = replace(MINIMAL, metrics={"srg": 0.25, "deletion_auc": 0.5})
    for named, absent in ((("srg", "deletion_auc"), {"srg"}), (("deletion_auc",), set())):
        table = pq.read_table(io.BytesIO(encode_records([record, MINIMAL], MetricSettings(names=named))["records"]))
        assert set(table.column_names) == set(WRITTEN.names) | absent
        assert table.column_names[: len(WRITTEN)] == WRITTEN.names
    (first, second) = from_parquet([encode_records([record, MINIMAL], MetricSettings(names=("srg",)))["records"]], RECORDS).to_pylist()
    assert (first["srg"], second["srg"], first["sparseness"]) == (0.25, None, None)


def test_a_field_that_a_row_lacks_is_null() -> None:
    (row,) = from_parquet([to_parquet([{"row": 3, "status": "unreadable"}], RECORDS)], RECORDS).to_pylist()
    assert row["row"] == 3
    assert {name for name, value in row.items() if value is not None} == {"row", "status"}


def test_no_parts_are_an_empty_table_of_the_schema() -> None:
    assert from_parquet([], RECORDS).schema == RECORDS
    assert from_parquet([to_parquet([], FACTS)], FACTS).num_rows == 0


def test_parts_are_joined_in_their_order() -> None:
    parts = [to_parquet([{"row": row} for row in rows], FACTS) for rows in ([4, 5], [0])]
    assert from_parquet(parts, FACTS)["row"].to_pylist() == [4, 5, 0]


# The curves


def test_curves_are_those_of_the_images_that_were_measured(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    arrays, records, facts = results(plan, plan.shards[1])
    records[1:3] = [replace(record, deletion=None, insertion=None) for record in records[1:3]]
    store.write_shard(plan.shards[1], arrays, records, facts, plan.config)
    (part,) = store.curves()
    ends = {"deletion": [1.0, 0.5, 0.25], "insertion": [0.25, 0.5, 1.0]}
    assert part.to_pylist() == [{"row": 2, "method": "hdm", "rank": 0, **ends}, {"row": 3, "method": "grad_cam", "rank": 0, **ends}]


@pytest.mark.parametrize("folder", ["records", "curves"])
def test_parts_of_an_earlier_version_are_of_rank_0(run: Path, folder: str) -> None:
    for path in (run / folder).iterdir():
        pq.write_table(pq.read_table(path).drop_columns("rank"), path)
    store = RunStore.open(str(run))
    tables = [store.records()] if folder == "records" else list(store.curves())
    assert {rank for table in tables for rank in table["rank"].to_pylist()} == {0}
    assert {row["n"] for row in aggregate(store).to_pylist()} == {5}


# Files of other versions


@pytest.mark.parametrize("name", [name for name in WRITTEN.names if name != "rank"])
def test_a_column_that_a_file_lacks_is_null(run: Path, name: str) -> None:
    paths = sorted((run / "records").iterdir())
    whole = pa.concat_tables(pq.read_table(path) for path in paths)
    pq.write_table(pq.read_table(paths[1]).drop_columns(name), paths[1])
    store = RunStore.open(str(run))
    missing = range(4, 8)  # the rows of the second of three files
    values = [None if i in missing else value for i, value in enumerate(whole[name].to_pylist())]
    records = store.records()
    assert records.schema.equals(RECORDS, check_metadata=True)
    assert records[name].to_pylist() == values
    assert records.drop_columns([name, *metrics_on_request()]).equals(whole.drop_columns(name))
    assert pa.concat_tables(store.record_parts([name]))[name].to_pylist() == values


def test_a_metric_that_is_not_installed_here_is_no_column_of_the_records_and_a_row_of_the_tables(run: Path) -> None:
    store = RunStore.open(str(run))
    before, tables = store.records(), aggregate(store).to_pylist()
    for path in (run / "records").iterdir():
        table = pq.read_table(path)
        pq.write_table(table.add_column(14, "laser_pointing", pa.array([0.5] * len(table), pa.float32())), path)
    assert store.records().equals(before)
    found = aggregate(store).to_pylist()
    assert [row for row in found if row["metric"] != "laser_pointing"] == tables
    assert [(row["method"], row["mean"]) for row in found if row["metric"] == "laser_pointing"] == [("hdm", 0.5), ("grad_cam", 0.5)]
    assert Record.from_row(store.records().to_pylist()[0]).metrics.keys() == set(METRICS)


def test_image_tables_of_other_versions_are_read(run: Path) -> None:
    for path in [run / "images.parquet", *(run / "images").iterdir()]:
        pq.write_table(
            pq.read_table(path).drop_columns("truth_sha256").append_column("camera", pa.repeat("x", pq.read_metadata(path).num_rows)), path
        )
    images = RunStore.open(str(run)).images_with_facts()
    assert images.schema.equals(IMAGES, check_metadata=True)
    assert images["truth_sha256"].to_pylist() == [None] * 5
    assert images["width"].to_pylist() == [24] * 5


def test_only_curves_of_committed_shards_count_and_an_old_run_has_fewer(run: Path) -> None:
    store = RunStore.open(str(run))
    (run / "commits/000002.json").unlink()
    (run / "curves/part-000000.parquet").unlink()
    assert [part["row"].to_pylist() for part in store.curves()] == [[2, 2, 3, 3]]
    shutil.rmtree(run / "curves")
    assert list(store.curves()) == []


# images.parquet


def test_facts_fill_the_images_and_unreadable_ones_keep_nulls() -> None:
    images = pa.Table.from_pylist([{"row": row, "image_id": str(row), "path": f"{row}.png", "label": row} for row in range(4)], IMAGES)
    fact = {"sha256": "ab", "width": 7, "height": 5, "crop": [1.0, 0.0, 6.0, 5.0]}
    facts = pa.Table.from_pylist([{"row": 3, **fact}, {"row": 2}, {"row": 0, **fact, "width": 9}], FACTS)
    filled = with_facts(images, facts)
    assert filled.schema == IMAGES
    rows = filled.to_pylist()
    assert [row["width"] for row in rows] == [9, None, None, 7]
    assert [row["crop"] for row in rows] == [[1.0, 0.0, 6.0, 5.0], None, None, [1.0, 0.0, 6.0, 5.0]]
    assert [row["sha256"] for row in rows] == ["ab", None, None, "ab"]
    assert [row["label"] for row in rows] == [0, 1, 2, 3]
    assert with_facts(filled, facts).equals(filled)


def test_images_are_completed_as_shards_come_in(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    store.write_image_facts()
    assert store.images()["width"].to_pylist() == [None] * 5
    for done, shard in enumerate((plan.shards[2], plan.shards[0])):
        arrays, records, facts = results(plan, shard)
        store.write_shard(shard, arrays, records, [{"row": facts[0]["row"]}, *facts[1:]], plan.config)
        store.write_image_facts()
        assert store.images()["width"].to_pylist() == [None, 24 if done else None, None, None, None]
    assert store.images()["image_id"].to_pylist() == [f"{i}.png" for i in range(5)]


def test_the_tables_schema_is_the_written_one(run: Path) -> None:
    assert pq.read_table(io.BytesIO((run / "tables.parquet").read_bytes())).schema.names == TABLES.names
