"""RunStore: its files, their contents, resuming, and the plans it refuses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets import Sample
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.runs.maps import create_arrays, encode_shard
from tests.support.plans import configuration, files_below, plan_of, refused, results, write_all

# The files


def test_a_finished_run_is_exactly_these_files(run: Path) -> None:
    parts = [f"{folder}/part-{index:06d}.parquet" for folder in ("records", "curves", "images") for index in range(3)]
    maps = ["zarr.json", *(f"{name}/zarr.json" for name in ("hdm", "grad_cam", "hdm_stages"))]
    maps += [f"{name}/c/{index}/0/0" for name in ("hdm", "grad_cam") for index in range(3)]
    maps += [f"hdm_stages/c/{index}/0/0/0" for index in range(3)]
    assert files_below(run) == {
        "run.json",
        "images.parquet",
        "tables.parquet",
        "statistics.parquet",
        *parts,
        *(f"maps.zarr/{name}" for name in maps),
        *(f"commits/{index:06d}.json" for index in range(3)),
    }


def test_a_run_that_was_only_created_has_no_data(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    maps = {f"maps.zarr/{name}zarr.json" for name in ("", "hdm/", "grad_cam/", "hdm_stages/")}
    assert files_below(Path(store.url)) == {"run.json", "images.parquet", *maps}


def test_run_json_describes_the_run(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    info = json.loads((Path(store.url) / "run.json").read_text())
    assert info["schema_version"] == 1
    assert info["name"] == "tiny"
    assert info["config"] == plan.config.model_dump(mode="json")
    assert info["config_hash"] == plan.config.hash()
    assert info["identity"] == json.loads(json.dumps(plan.config.identity()))
    assert info["auto"] == {"batch_size": {"cpu": 8, "cuda": 64}, "precision": {"cpu": "float32", "cuda": "bfloat16"}}
    assert info["model_fingerprint"] == plan.weights_digest
    assert info["dataset_listing"] == plan.dataset_digest()
    assert (info["images"], info["shards"], info["seed"]) == (5, 3, 0)
    assert {"hdm-pipeline", "torch", "torchvision", "zarr", "ray", "pyarrow"} <= set(info["versions"])


def test_a_commit_names_its_rows_and_verifies_every_object(run: Path, plan: Plan) -> None:
    for shard in plan.shards:
        commit = json.loads((run / f"commits/{shard.index:06d}.json").read_text())
        assert commit["shard"] == shard.index
        assert commit["rows"] == [shard.start, shard.stop]
        assert commit["config_hash"] == plan.config.hash()
        for name, digest in commit["sha256"].items():
            assert hashlib.sha256((run / name).read_bytes()).hexdigest() == digest, name
    named = {name for commit in (run / "commits").iterdir() for name in json.loads(commit.read_text())["sha256"]}
    data = {name for name in files_below(run) if "/c/" in name or "/part-" in name}
    assert named == data


# Resuming


def test_a_shard_counts_when_its_commit_is_there_and_not_before(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    assert store.done() == set()
    write_all(store, plan)
    (Path(store.url) / "commits/000001.json").unlink()
    assert store.done() == {0, 2}
    assert store.records()["row"].to_pylist() == [0, 0, 1, 1, 4, 4]


def test_a_shard_is_written_again_after_a_driver_was_killed_before_the_commit(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    write_all(store, plan)
    before = {name: (Path(store.url) / name).read_bytes() for name in files_below(Path(store.url))}
    (Path(store.url) / "commits/000001.json").unlink()
    stale = {name: 1 - array for name, array in results(plan, plan.shards[1])[0].items()}
    for name, data in encode_shard(1, 2, 2, stale).items():
        store.storage.write(f"maps.zarr/{name}", data)
    assert (Path(store.url) / "maps.zarr/hdm/c/1/0/0").read_bytes() != before["maps.zarr/hdm/c/1/0/0"]
    (Path(store.url) / "records/part-000001.parquet").unlink()
    assert store.write_shard(plan.shards[1], *results(plan, plan.shards[1]), plan.config) is True
    assert {name: (Path(store.url) / name).read_bytes() for name in files_below(Path(store.url))} == before


@pytest.mark.parametrize("name", ["000003.json.4f2a.tmp", "notes.json", ".nfs0001", "000003.txt"])
def test_other_files_among_the_commits_are_not_counted(run: Path, name: str) -> None:
    (run / "commits" / name).write_text("{}")
    assert RunStore.open(str(run)).done() == {0, 1, 2}


# Refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hdm.steps": 7}, ["methods.hdm.steps (3, now 7)"]),
        ({"seed": 4}, ["seed (0, now 4)"]),
        ({"compute.shard_size": 3, "seed": 4}, ["shard_size (2, now 3)", "seed (0, now 4)"]),
        ({"methods": ["hdm"]}, ["methods.grad_cam", "now None"]),
        ({"metrics.baseline": "blur"}, ["metrics.baseline ('mean', now 'blur')"]),
        ({"target": 3}, ["target ('predicted', now 3)"]),
        ({"dataset.per_class": 2}, ["dataset.per_class (None, now 2)"]),
    ],
    ids=str,
)
def test_another_configuration_is_refused_with_both_values(plan: Plan, store: RunStore, changes: dict[str, Any], words: list[str]) -> None:
    store.create(plan)
    before = files_below(Path(store.url))
    other = plan_of(configuration(changes, output=plan.config.output))
    message = refused(lambda: RunStore.from_config(other.config).create(other))
    assert plan.config.hash()[:12] in message
    assert other.config.hash()[:12] in message
    assert message.endswith("choose another name for this run")
    assert all(word in message for word in words)
    assert files_below(Path(store.url)) == before


def test_what_does_not_change_the_result_is_not_refused(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    other = plan_of(configuration({"compute.workers": 3, "compute.gpus_per_worker": 0.5}, output=plan.config.output))
    assert RunStore.from_config(other.config).create(other) is False


def test_a_dataset_that_changed_is_refused(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    for samples in (
        [*plan.samples, Sample("new.png", "new.png")],
        plan.samples[::-1],
        [replace(plan.samples[0], label=9), *plan.samples[1:]],
    ):
        message = refused(lambda samples=samples: store.create(replace(plan, samples=samples)))
        assert "was started with another dataset" in message
        assert plan.dataset_digest() in message


def test_another_classifier_of_the_same_name_is_refused(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    message = refused(lambda: store.create(replace(plan, weights_digest="e" * 64)))
    assert "was started with another classifier" in message
    assert "f" * 64 in message
    assert "e" * 64 in message


def test_a_run_of_another_schema_is_refused(plan: Plan, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create(plan)
    monkeypatch.setattr("pipeline.runs.metadata.SCHEMA_VERSION", 2)
    assert "another schema version (1, now 2)" in refused(lambda: store.create(plan))


@pytest.mark.parametrize("text", ["{", "{}"])
def test_a_foreign_run_json_is_refused(plan: Plan, store: RunStore, text: str) -> None:
    store.storage.write("run.json", text.encode())
    message = refused(lambda: store.create(plan))
    assert store.url in message
    assert "choose another name" in message


@pytest.mark.parametrize(("images", "side", "shard"), [(9, 8, 2), (5, 6, 2), (5, 8, 4)])
def test_arrays_that_another_run_left_are_refused(plan: Plan, store: RunStore, images: int, side: int, shard: int) -> None:
    create_arrays(store.storage.zarr("maps.zarr"), {"grad_cam": (images, side, side)}, shard)
    message = refused(lambda: store.create(plan))
    assert message.startswith("maps.zarr/grad_cam was left by another run")
    assert "choose another name or remove" in message
    assert not store.storage.exists("run.json")


def test_arrays_of_the_same_plan_are_reused(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    (Path(store.url) / "run.json").unlink()
    assert store.create(plan) is True


def test_shards_without_a_run_are_refused(run: Path, plan: Plan) -> None:
    (run / "run.json").unlink()
    message = refused(lambda: RunStore.from_config(plan.config).create(plan))
    assert "holds the shards of a run that has no run.json" in message


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plan = plan_of(configuration(output=str(tmp_path / "file")))
    message = refused(lambda: RunStore.from_config(plan.config).create(plan))
    assert message.startswith(f"output {tmp_path}/file/tiny cannot be written: ")
    assert message.endswith("choose another with --output")


def test_a_full_disk_is_refused(plan: Plan, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in refused(lambda: store.create(plan))


def test_an_output_of_an_unknown_protocol_is_refused() -> None:
    assert refused(lambda: RunStore.from_config(configuration(output="nosuch://bucket"))).startswith("output nosuch://bucket: ")


def test_another_driver_that_creates_the_same_run_is_joined(plan: Plan, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither driver finds a run.json; the other one writes it first."""
    other = RunStore.from_config(plan.config)
    exists = store.storage.exists
    monkeypatch.setattr(store.storage, "exists", lambda name: name != "run.json" and exists(name))
    other.create(plan)
    assert store.create(plan) is False
    different = plan_of(configuration({"seed": 3}, output=plan.config.output))
    assert "seed (0, now 3)" in refused(lambda: store.create(different))


def test_the_rows_of_images_are_the_samples(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    row = store.images().to_pylist()[3]
    assert {name: value for name, value in row.items() if value is not None} == {
        "row": 3,
        "image_id": "3.png",
        "path": "photographs/3.png",
        "label": 1,
        "class_name": "b",
    }
