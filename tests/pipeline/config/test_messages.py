"""Invalid configurations: each is refused in one line that names the key, the problem and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.load import load_config
from tests.support.plans import configuration, mapping, refused


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("datset", "dataset"),
        ("dataset.rot", "root"),
        ("classifier.weigths", "weights"),
        ("metrics.basline", "baseline"),
        ("compute.worker", "workers"),
        ("hdm.learning_rte", "learning_rate"),
        ("grad_cam.layr", "layer"),
        ("grad_cm", "grad_cam"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(key: str, near: str) -> None:
    message = refused(lambda: configuration({key: 1}))
    assert "unknown key" in message
    assert key in message
    assert message.endswith(f"did you mean {near}?")


@pytest.mark.parametrize(
    ("key", "known"),
    [("zzzz", ["dataset", "classifier", "hdm"]), ("dataset.zzzz", ["kind", "root", "per_class"]), ("hdm.zzzz", ["sizes", "stages"])],
)
def test_an_unknown_key_that_is_near_to_none_is_answered_with_all(key: str, known: list[str]) -> None:
    message = refused(lambda: configuration({key: 1}))
    assert key in message
    assert all(name in message.partition("known are ")[2] for name in known)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["hdm", "score_can"]}, ["unknown method 'score_can'", "hdm, dm, "]),
        ({"methods": ["hdm", "dm", "hdm"]}, ["methods", "twice", "hdm, dm, hdm"]),
        ({"methods": []}, ["methods", "empty"]),
        ({"methods": "hdm"}, ["methods", "a list such as [a, b]", "'hdm'"]),
        ({"methods": [3]}, ["methods.0", "string", "3"]),
        ({"hdm.preset": "best"}, ["hdm", "unknown preset 'best'", "paper-cub, paper-pm, fast"]),
        ({"hdm.preset": ["fast"]}, ["hdm.preset", "paper-cub, paper-pm, fast", "['fast']"]),
        ({"hdm": "fast"}, ["hdm", "{preset: NAME}", "'fast'"]),
        ({"hdm": []}, ["hdm", "{preset: NAME}", "[]"]),
        ({"hdm.self": 0}, ["hdm", "self"]),
        ({"hdm.steps": 0}, ["hdm.steps", "greater than or equal to 1", "not 0"]),
        ({"dm.sizes": [6, "x"]}, ["dm.sizes.1", "integer", "'x'"]),
        ({"hdm.ratios": []}, ["hdm.ratios", "empty"]),
        ({"dataset.kind": "voc"}, ["dataset.kind: unknown kind 'voc'; known are demo, cub, palm, idrid, folder, manifest, coco, "]),
        ({"dataset.kind": "foldr"}, ["dataset.kind: unknown kind 'foldr'", "known are demo, cub", "did you mean folder?"]),
        ({"dataset.kind": {}}, ["dataset.kind: unknown kind {}"]),
        ({"dataset": {"root": "x"}}, ["dataset.kind is missing: write one of demo, cub, palm, idrid, folder, manifest"]),
        ({"dataset": {"kind": "cub", "root": "x", "spilt": "test"}}, ["dataset.spilt: unknown key; did you mean split?"]),
        ({"dataset": {"kind": "demo", "split": "test"}}, ["dataset.split does not apply to a dataset of kind 'demo': remove it"]),
        ({"dataset.referable": True}, ["dataset.referable does not apply"]),
        ({"dataset": {"kind": "idrid", "root": "x"}}, ["dataset.part is missing: write grading or segmentation"]),
        ({"dataset": {"kind": "idrid", "root": "x", "part": "grading", "lesions": ["EX"]}}, ["dataset.lesions", "part 'grading'"]),
        ({"dataset": {"kind": "palm", "root": "x", "lesions": ["EX"]}}, ["dataset.lesions.0", "'Atrophy' or 'Detachment'", "not 'EX'"]),
        ({"dataset": {"kind": "palm", "root": "x", "lesions": []}}, ["dataset.lesions"]),
        ({"dataset.root": None, "dataset": {"kind": "folder"}}, ["dataset.root is missing", "a folder of images"]),
        ({"dataset": {"kind": "manifest"}}, ["dataset.root is missing", "a CSV or Parquet file"]),
        ({"dataset": {"kind": "folder", "root": ""}}, ["dataset.root is missing"]),
        ({"dataset": 5}, ["dataset", "section", "not 5"]),
        ({"dataset.root": 5}, ["dataset.root", "string", "not 5"]),
        ({"dataset.limit": 0}, ["dataset.limit", "greater than or equal to 1", "not 0"]),
        ({"dataset.per_class": "ten"}, ["dataset.per_class", "integer", "'ten'"]),
        ({"dataset.seed": -1}, ["dataset.seed", "greater than or equal to 0", "-1"]),
        ({"classifier.source": "keras"}, ["classifier.source: unknown source 'keras'; known are torchvision, checkpoint"]),
        ({"classifier.source": "tim"}, ["classifier.source: unknown source 'tim'", "did you mean timm?"]),
        ({"classifier.source": 3}, ["classifier.source", "string", "not 3"]),
        ({"classifier.crop": 0}, ["classifier.crop", "greater than or equal to 1"]),
        ({"metrics.baseline": "white"}, ["metrics.baseline", "'mean', 'black', 'blur' or 'noise'", "'white'"]),
        ({"metrics.protocol": "roar"}, ["metrics.protocol", "'paper' or 'rise'", "'roar'"]),
        ({"compute.batch_size": 0}, ["compute.batch_size", "greater than or equal to 1", "or be 'auto'", "not 0"]),
        ({"compute.batch_size": "big"}, ["compute.batch_size", "integer", "'auto'", "'big'"]),
        ({"compute.workers": 1.5}, ["compute.workers", "integer", "'auto'", "1.5"]),
        ({"compute.gpus_per_worker": -1}, ["compute.gpus_per_worker", "greater than or equal to 0", "-1"]),
        ({"compute.gpus_per_worker": 1.5}, ["compute.gpus_per_worker", "1.5", "write 0.25 or 2"]),
        ({"compute.gpus_per_worker": float("inf")}, ["compute.gpus_per_worker", "finite", "inf"]),
        ({"compute.shard_size": 0}, ["compute.shard_size", "greater than or equal to 1"]),
        ({"target": -1}, ["target", "'predicted'", "greater than or equal to 0", "-1"]),
        ({"target": {"tp": 3}}, ["target", "a section with the key top", "{'tp': 3}"]),
        ({"target": "cat"}, ["target", "'predicted'", "integer", "'cat'"]),
        ({"seed": 2**70}, ["seed", "less than 9223372036854775808"]),
        ({"name": "a/b"}, ["name", "a/b"]),
        ({"name": ".."}, ["name", "'..'"]),
        ({"name": "two\nlines"}, ["name", "two\\nlines"]),
        ({"output": ""}, ["output", "at least 1 character"]),
        ({"storage": "s3"}, ["storage", "section", "'s3'"]),
    ],
    ids=str,
)
def test_bad_values_are_refused_with_what_where_and_what_would_do(changes: dict[str, Any], words: list[str]) -> None:
    message = refused(lambda: configuration(changes))
    assert message.startswith("configuration: ")
    for word in words:
        assert word in message
    assert "constrained" not in message  # pydantic's names of types are not keys
    assert "literal" not in message


@pytest.mark.parametrize("secret", ["key", "secret", "token", "password", "aws_secret_access_key", "aws_access_key_id", "account_key"])
@pytest.mark.parametrize("place", ["storage", "storage.client_kwargs"])
def test_a_secret_in_the_storage_options_is_refused_and_not_repeated(secret: str, place: str) -> None:
    message = refused(lambda: configuration({f"{place}.{secret}": "hunter2"}))
    assert f"{place}.{secret} is a secret" in message
    assert "in the environment" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("key", ["name", "dataset", "classifier", "methods", "output"])
def test_a_missing_key_is_named(key: str) -> None:
    source = mapping()
    del source[key]
    assert refused(lambda: load_config(source)) == f"configuration: {key}: field required"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", ["no valid YAML", "line 1"]),
        ("- hdm\n- dm", ["mapping", "name, dataset"]),
        ("", ["mapping", "name, dataset"]),
        ("!!python/object/apply:os.getcwd []", ["no valid YAML", "python/object/apply:os.getcwd"]),
        (f"{yaml.safe_dump(mapping())}\n5: six", ["5", "strings"]),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_its_name(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    message = refused(lambda: load_config(str(file)))
    assert message.startswith(f"{file}: ")
    assert all(word in message for word in words)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\xfa")
    assert "neither a preset" in refused(lambda: load_config(str(tmp_path / "run.yaml")))


@pytest.mark.parametrize("source", ["demoo", "", "nowhere/run.yaml", "nosuchprotocol://bucket/run.yaml"])
def test_what_is_neither_a_preset_nor_a_file_is_answered_with_the_presets(source: str) -> None:
    message = refused(lambda: load_config(source))
    assert f"{source}: neither a preset (ablation, cub-full, demo, pm-full) nor a file" in message


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    assert "directory" in refused(lambda: load_config(str(tmp_path)))
