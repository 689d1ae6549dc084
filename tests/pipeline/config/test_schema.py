"""Valid configurations and their meaning, and changes from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hdm_core import METHODS, PAPER_METHODS
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


def test_all_methods_are_those_of_the_registry_that_explain_any_network_in_its_order() -> None:
    config = configuration(methods="all")
    # LeGrad and attention rollout are named: a convolutional network has no attention, and its run would be refused.
    assert config.methods == tuple(method for method in METHODS if method not in ("legrad", "attention_rollout"))
    assert list(config.settings) == list(config.methods)
    assert configuration(methods=["hdm", "legrad"]).settings["legrad"] == METHODS["legrad"].configure()


def test_names_of_groups_stand_for_their_methods() -> None:
    paper = configuration(methods="paper")
    assert paper.methods == PAPER_METHODS == tuple(METHODS)[:15]
    assert paper.hash() == configuration(methods=list(PAPER_METHODS)).hash()
    controls = ("center", "edges", "random_map")
    assert configuration(methods="controls").methods == configuration(methods=["controls"]).methods == controls
    assert configuration(methods=["hdm", "controls"]).methods == ("hdm", *controls)
    assert configuration(methods=["paper", "controls", "legrad"]).methods == (*PAPER_METHODS, *controls, "legrad")
    assert "one of them is named twice" in refused(lambda: configuration(methods=["paper", "hdm"]))


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
    assert set(mapping()["hdm"]) <= {*HDMSettings.model_fields, "preset"}
    assert set(DMSettings.model_fields) < set(HDMSettings.model_fields)
