"""Configurations: valid ones and their meaning, and invalid ones with their error of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hdm_core import METHODS
from hdm_core.settings import DMSettings, HDMSettings
from pipeline.config.load import load_config, parse_changes, presets
from pipeline.config.schema import RunConfig
from tests.support.plans import configuration, mapping, refused

# The YAML of the contract.
CONTRACT = """
name: cub-full                     # the run's folder under output
dataset:    {kind: cub, root: s3://data/CUB_200_2011, split: test, per_class: 10, limit: null, seed: 0}
classifier: {source: torchvision, arch: resnet50, weights: IMAGENET1K_V2}
methods:    [hdm, dm, grad_cam]    # or: all
hdm:        {preset: paper-cub}    # and any setting of it; each method's section likewise
metrics:    {baseline: mean, protocol: paper}
compute:    {workers: auto, gpus_per_worker: 0.25, shard_size: 256, batch_size: auto, ray_address: null}
output:     s3://explanations
storage:    {endpoint_url: "http://127.0.0.1:9000", client_kwargs: {region_name: eu-central-1}}
"""


# Valid


def test_the_yaml_of_the_contract_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(CONTRACT)
    config = load_config(str(file))
    assert config == load_config(yaml.safe_load(CONTRACT))
    assert config.dataset.model_dump(exclude_defaults=True) == {
        "kind": "cub",
        "root": "s3://data/CUB_200_2011",
        "split": "test",
        "per_class": 10,
    }
    assert (config.classifier.source, config.classifier.arch, config.classifier.weights) == ("torchvision", "resnet50", "IMAGENET1K_V2")
    assert config.settings["hdm"] == METHODS["hdm"].presets["paper-cub"]
    assert config.compute.gpus_per_worker == 0.25
    assert config.storage["client_kwargs"] == {"region_name": "eu-central-1"}


@pytest.mark.parametrize(
    "dataset",
    [
        {"kind": "demo"},
        {"kind": "cub", "root": "x", "split": "test"},
        {"kind": "palm", "root": "x", "lesions": ["Atrophy"]},
        {"kind": "idrid", "root": "x", "part": "grading", "referable": True},
        {"kind": "idrid", "root": "x", "part": "segmentation", "lesions": ["EX", "OD"]},
        {"kind": "folder", "root": "x"},
        {"kind": "manifest", "root": "x.csv"},
    ],
)
def test_every_kind_of_dataset_is_taken(dataset: dict[str, str]) -> None:
    assert configuration(dataset=dataset).dataset.kind == dataset["kind"]


def test_all_methods_are_those_of_the_registry_in_its_order() -> None:
    config = configuration(methods="all")
    assert config.methods == tuple(METHODS)
    assert list(config.settings) == list(METHODS)


def test_a_section_of_a_method_overrides_its_preset_and_leaves_the_rest() -> None:
    config = configuration(methods=["hdm", "dm"], hdm={"preset": "paper-cub", "steps": 10}, dm=None)
    assert config.settings["hdm"] == METHODS["hdm"].configure("paper-cub", steps=10)
    assert config.settings["hdm"].model_dump() == METHODS["hdm"].presets["paper-cub"].model_dump() | {"steps": 10}
    assert config.settings["dm"] == METHODS["dm"].configure()


def test_a_configuration_cannot_be_changed_and_survives_json() -> None:
    config = configuration()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert load_config(json.loads(json.dumps(config.model_dump(mode="json")))).hash() == config.hash()


def test_keys_of_other_kinds_are_taken_where_they_say_nothing() -> None:
    keys = {"split": None, "part": None, "referable": False, "lesions": None}
    assert configuration(dataset={"kind": "folder", "root": "x", **keys}) == configuration(dataset={"kind": "folder", "root": "x"})


def test_every_packaged_preset_is_complete() -> None:
    assert {"demo", "cub-full", "pm-full"} <= set(presets())
    for name in presets():
        config = load_config(name, {"dataset.root": "photographs"})
        assert config.name == name
        assert config.output
        assert config.settings


@pytest.mark.parametrize("name", ["cub-full", "pm-full"])
def test_a_preset_without_a_root_says_so(name: str) -> None:
    message = refused(lambda: load_config(name))
    assert message.startswith(f"{name}: ")
    assert "dataset.root is missing" in message
    assert "set dataset.root" in message


def test_the_callers_mapping_is_left_alone() -> None:
    source = mapping()
    load_config(source, {"hdm.steps": 9, "compute.workers": 3, "storage.anon": True})
    assert source == mapping()


# Invalid


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
        ({"dataset.kind": "coco"}, ["dataset.kind: unknown kind 'coco'; known are demo, cub, palm, idrid, folder, manifest"]),
        ({"dataset.kind": "foldr"}, ["dataset.kind: unknown kind 'foldr'", "known are demo, cub", "did you mean folder?"]),
        ({"dataset.kind": {}}, ["dataset.kind: unknown kind {}"]),
        ({"dataset": {"root": "x"}}, ["dataset.kind is missing: write one of demo, cub, palm, idrid, folder, manifest"]),
        ({"dataset": {"kind": "cub", "root": "x", "spilt": "test"}}, ["dataset.spilt: unknown key; did you mean split?"]),
        ({"dataset.split": "test"}, ["dataset.split says nothing about a dataset of kind 'folder': remove it"]),
        ({"dataset.referable": True}, ["dataset.referable says nothing"]),
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
        ({"metrics.baseline": "white"}, ["metrics.baseline", "'mean', 'black' or 'blur'", "'white'"]),
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


# Changes from the command line


def test_changes_are_read_as_yaml() -> None:
    texts = ["compute.workers=2", "methods=[hdm, dm]", "hdm.learning_rate=1e-2", "name=a=b", "storage.anon=true", "dataset.split="]
    assert parse_changes(texts) == {
        "compute.workers": 2,
        "methods": ["hdm", "dm"],
        "hdm.learning_rate": "1e-2",  # a number in YAML 1.1 is 1.0e-2; the configuration accepts both
        "name": "a=b",
        "storage.anon": True,
        "dataset.split": None,
    }
    assert configuration({"hdm.learning_rate": "1e-2"}).settings["hdm"].model_dump()["learning_rate"] == 0.01


@pytest.mark.parametrize("text", ["compute.workers", "=2", ""])
def test_a_change_that_is_no_assignment_is_refused(text: str) -> None:
    assert refused(lambda: parse_changes([text])).startswith(f"--set {text}: write KEY=VALUE")


def test_a_change_whose_value_is_no_yaml_is_refused() -> None:
    assert refused(lambda: parse_changes(["methods=[hdm"])).startswith("--set methods: the value is no YAML")


def test_changes_reach_sections_that_the_file_does_not_have() -> None:
    config = configuration({"metrics.baseline": "blur", "dm.steps": 7, "methods": ["dm"], "dataset.limit": None})
    assert config.metrics.baseline == "blur"
    assert config.settings["dm"].model_dump()["steps"] == 7


def test_a_change_below_a_value_is_refused() -> None:
    assert refused(lambda: configuration({"name.first": "x"})) == "--set name.first: name is no section"


def test_the_last_of_several_changes_counts() -> None:
    assert parse_changes(["seed=1", "seed=2"]) == {"seed": 2}


# Any mapping is accepted or refused in one line, never with a traceback

_keys = st.sampled_from(["preset", "steps", "sizes", "kind", "root", "arch", "workers", "zzz", "self", "1"])
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_keys, inner, max_size=2),
    max_leaves=4,
)
_top = st.sampled_from([*RunConfig.model_fields, *METHODS, "zzz"])


@given(st.dictionaries(_top, _values, max_size=3))
def test_whatever_is_written_is_taken_or_refused_with_one_line(changes: dict[str, Any]) -> None:
    try:
        config = load_config(mapping(**changes))
    except Exception:  # any exception must be a refusal
        refused(lambda: load_config(mapping(**changes)))
    else:
        assert isinstance(config.hash(), str)


def test_the_settings_named_here_are_those_of_the_core() -> None:
    assert set(mapping()["hdm"]) <= set(HDMSettings.model_fields)
    assert set(DMSettings.model_fields) < set(HDMSettings.model_fields)
