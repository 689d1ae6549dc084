"""The configuration's hash stands for the result: what changes a map changes it, and nothing else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdm_core.methods.cam import CAMSettings
from hdm_core.metrics.evaluate import MetricSettings
from hdm_core.settings import HDMSettings
from pipeline.config.load import load, load_config
from pipeline.config.schema import ClassifierConfig, ComputeConfig, RunConfig
from pipeline.datasets import DATASETS
from pipeline.training.config import TrainConfig
from pipeline.training.run import train_presets
from tests.support.plans import configuration, mapping

# Another value for every field that the result depends on.
OTHER: dict[str, Any] = {
    "dataset.kind": "manifest",
    "dataset.root": "elsewhere",
    "dataset.splits": "classifier/split.csv",
    "dataset.per_class": 3,
    "dataset.limit": 3,
    "dataset.seed": 1,
    "classifier.arch": "resnet18",
    "classifier.weights": "DEFAULT",
    "classifier.resize": 40,
    "classifier.crop": 24,
    "classifier.classes": 9,
    "classifier.mean": [0.5, 0.5, 0.5],
    "classifier.std": [0.5, 0.5, 0.5],
    "classifier.interpolation": "bicubic",
    "methods": ["hdm"],
    "hdm.sizes": [2, 4],
    "hdm.ratios": [3],
    "hdm.steps": 4,
    "hdm.learning_rate": 0.2,
    "hdm.eta": 0.03,
    "hdm.tau": 0.6,
    "hdm.keep_fraction": 0.5,
    "hdm.baseline": "black",
    "hdm.activation": "probability",
    "hdm.stages": 3,
    "hdm.mix_steps": 4,
    "hdm.mix_learning_rate": 0.2,
    "hdm.mix_weight": 0.001,
    "hdm.relative": False,
    "hdm.noise": 0.1,
    "hdm.removal": 0.2,
    "grad_cam.layer": "features.3",
    "metrics.baseline": "blur",
    "metrics.protocol": "rise",
    "target": 3,
    "seed": 1,
    "compute.shard_size": 3,
    "compute.batch_size": 3,
    "compute.threads": 2,
    "compute.precision": "bfloat16",
}

# What only says where, by whom and how fast.
INDIFFERENT: dict[str, Any] = {
    "name": "another",
    "output": "memory://elsewhere",
    "storage": {"endpoint_url": "http://127.0.0.1:9000"},
    "compute.workers": 7,
    "compute.gpus_per_worker": 0.25,
    "compute.max_attempts": 9,
    "compute.stall_timeout": 9,
    "compute.lease_seconds": 9,
    "compute.storage_timeout": 9,
    "compute.single_driver": True,
    "compute.ray_address": "ray://head:10001",
    "dm.steps": 9,  # of a method that is not run
}

# Fields that go together, and have a test of their own.
TOGETHER = {
    *("classifier.source", "classifier.path", "classifier.train", "classifier.factory", "classifier.arguments"),
    *("dataset.split", "dataset.part", "dataset.referable", "dataset.lesions"),
}


# Hashes of version 0.1.0. They are stored with every run and every training: a change makes all of them another run.
CLASSIFIER = {"arch": "mobilenet_v2", "weights": "IMAGENET1K_V1"}
PRESET_HASHES = {
    "demo": "94db60c025bda6288c672b814539767c5732aa6eaef6eeb9f605ffef388683cb",
    "cub-full": "a448bd7eb2ec0be9bafccae0cc510aa106a2ff0547b4dfa6204c00bbb56525d9",
    "pm-full": "63852b1f768cf4b732c16ea68a15970ccc03b573d8ef65c31e4c1ff6282e7e84",
    "ablation": "4b52030933e3bfb23df0ad3b2c533665134ed53989396a70b04854cee03dd265",
}
TRAINING_HASHES = {
    "cub": "e44435580979ddcd0eddf97d532dc3fdb21cadde821517b2e3a1c9f913fc8a1c",
    "cub-mobilenet": "518ce5ea624614fb51b6468779412fd675f4bd44a235e882bbe22012665a3739",
    "idrid-mobilenet": "515d457898b987dd628533cbcb2b49e9f1cd3ca508742b1a289cfb02691235b1",
    "palm": "5a3333db727631f80852ea153f4b4f904013b74af24cd3fdfe907f26bf5ac5cc",
    "palm-mobilenet": "e94f74c6cd6742461f208ed79e3321137deddcc227ae294553b9a3dbc78acac0",
}
SECTION_HASHES: list[tuple[dict[str, Any], str]] = [
    ({"dataset": {"kind": "demo"}}, "feddc153b91362f5fbf4bac855a8d160db6cd901a113b17a26651397a7d0fb15"),
    (
        {"dataset": {"kind": "cub", "root": "birds", "split": "test", "per_class": 2}},
        "43945bed30cb5547d02635ee0c831bd33c33affcf7ec4e126bc624e42bb192eb",
    ),
    (
        {"dataset": {"kind": "palm", "root": "palm", "lesions": ["Atrophy"], "limit": 5, "seed": 3}},
        "31c1181e699bf21f4cb568190efaafbe67fdcb03b6721cd80b972bab82b1edf7",
    ),
    (
        {"dataset": {"kind": "idrid", "root": "idrid", "part": "grading", "referable": True, "split": "train"}},
        "3ed31b75e40989fcd75f374c2efd438499982e9c413628ee23bc2648c46d28f6",
    ),
    (
        {"dataset": {"kind": "idrid", "root": "idrid", "part": "segmentation", "lesions": ["EX", "OD"]}},
        "f58cd46659f8856a4eda9ecc81f223056609fed091b0ab8f56b9d2dfa9e4ffec",
    ),
    (
        {"dataset": {"kind": "folder", "root": "photographs", "splits": "split.csv", "split": "test"}},
        "d4204dd6f303fe0b42d56d20a6409471ac2679466cab156bf950014f6f2a55da",
    ),
    ({"dataset": {"kind": "manifest", "root": "m.csv", "split": "a"}}, "06ce999431eb888895a685260165d422da49def5f1007afbfa086fe18f370426"),
    (
        {"classifier": {"source": "torchvision", "arch": "resnet50", "weights": "DEFAULT", "crop": 64}},
        "af940a38254a370a54b37745190ac99e6f33cf012efc50799064afaf3084d674",
    ),
    (
        {"classifier": {"source": "checkpoint", "path": "classifiers/cub", "train": "cub"}},
        "fadb61706caa85ecb66b2cb6a328fb5c4c3b366da53c2ebada27c0e7c692d214",
    ),
    (
        {"classifier": {"source": "checkpoint", "path": "w.pth", "arch": "resnet18", "classes": ["a", "b"]}},
        "0965adf1729ab0879242a87fdea445dd4be29ba12635f08fb441f73fe0cd44c4",
    ),
    (
        {"classifier": {"source": "exported", "path": "n.pt2", "classes": 4, "mean": [0.5, 0.5, 0.5]}},
        "298b04df135e60a6ba0b7ce71a539d5e406f6872beb82e4b2a7e80b2c8f6e1aa",
    ),
    (
        {"classifier": {"source": "import", "factory": "m:make", "arguments": {"n": 2}}},
        "0120f1b792c00898e2a999ab01e478f5dcdffb85b7803da1c2fb6c5998b2798d",
    ),
    (
        {"classifier": {"source": "timm", "arch": "resnet18", "path": "w.safetensors", "classes": "names.txt"}},
        "466cbe269ee4ed1b03ae195485710184d0fb235631cc9161cec0c263eb8515a9",
    ),
]


@pytest.mark.parametrize("name", PRESET_HASHES)
def test_the_hash_of_a_preset_is_that_of_the_first_version(name: str) -> None:
    assert load_config(name, {"dataset.root": "photographs"}).hash() == PRESET_HASHES[name]


@pytest.mark.parametrize("name", TRAINING_HASHES)
def test_the_hash_of_a_training_is_that_of_the_first_version(name: str) -> None:
    assert load(name, {"dataset.root": "d"}, TrainConfig, train_presets()).hash() == TRAINING_HASHES[name]


@pytest.mark.parametrize(("section", "expected"), SECTION_HASHES, ids=str)
def test_the_hash_of_every_kind_and_source_is_that_of_the_first_version(section: dict[str, Any], expected: str) -> None:
    source = {"name": "r", "dataset": {"kind": "demo"}, "classifier": CLASSIFIER, "methods": ["hdm", "grad_cam"], "hdm": {"preset": "fast"}}
    config = load_config({**source, "output": "runs", **section})
    assert config.hash() == expected
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_every_kind_is_dumped_with_the_keys_of_all_built_in_kinds() -> None:
    keys = {"kind", "root", "split", "splits", "part", "referable", "lesions", "per_class", "limit", "seed"}
    for section, _ in SECTION_HASHES:
        assert set(configuration(**section).identity()["dataset"]) == keys


@pytest.mark.parametrize("key", OTHER)
def test_every_field_that_determines_the_result_changes_the_hash(key: str) -> None:
    assert configuration({key: OTHER[key]}).hash() != configuration().hash()


@pytest.mark.parametrize("key", INDIFFERENT)
def test_no_other_field_does(key: str) -> None:
    assert configuration({key: INDIFFERENT[key]}).hash() == configuration().hash()


def test_no_field_was_forgotten_here() -> None:
    sections = {
        "classifier": ClassifierConfig,
        "compute": ComputeConfig,
        "metrics": MetricSettings,
        "hdm": HDMSettings,
        "grad_cam": CAMSettings,
    }
    fields = {f"{name}.{field}" for name, section in sections.items() for field in section.model_fields}
    fields |= {f"dataset.{field}" for kind in DATASETS.values() for field in kind.config.model_fields}
    fields |= set(RunConfig.model_fields) - set(sections) - {"dataset"}
    assert fields == (set(OTHER) | set(INDIFFERENT) | TOGETHER) - {"dm.steps"}


def test_a_checkpoint_is_known_by_its_source_and_path() -> None:
    one, other = (configuration(classifier={"source": "checkpoint", "path": path}) for path in ("birds", "insects"))
    assert len({configuration().hash(), one.hash(), other.hash()}) == 3


def test_a_dataset_is_known_by_the_keys_of_its_kind() -> None:
    keys: list[dict[str, Any]] = [
        {"kind": "cub"},
        {"kind": "cub", "split": "test"},
        {"kind": "palm"},
        {"kind": "palm", "lesions": ["Atrophy"]},
        {"kind": "idrid", "part": "grading"},
        {"kind": "idrid", "part": "grading", "referable": True},
        {"kind": "idrid", "part": "segmentation"},
        {"kind": "idrid", "part": "segmentation", "lesions": ["EX", "SE"]},
    ]
    assert len({configuration(dataset={"root": "data", **each}).hash() for each in keys}) == len(keys)


def test_a_factory_is_known_by_its_name_and_arguments() -> None:
    source = {"source": "import", "factory": "models:make"}
    several = [source, {**source, "factory": "models:other"}, {**source, "arguments": {"depth": 2}}, {**source, "arguments": {"depth": 3}}]
    assert len({configuration(classifier=classifier).hash() for classifier in several}) == 4


@pytest.mark.parametrize("target", ["label", {"top": 2}, {"top": 3}, 2])
def test_every_target_is_another_run(target: Any) -> None:
    assert len({configuration(target=target).hash(), configuration(target=3).hash(), configuration().hash()}) == 3


def test_all_hashes_differ_from_each_other() -> None:
    hashes = [configuration({key: value}).hash() for key, value in OTHER.items()]
    assert len(set(hashes)) == len(hashes)


def _shuffled(value: Any, order: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _shuffled(value[key], order) for key in order(list(value))}


@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(random: Any) -> None:
    def order(keys: list[str]) -> list[str]:
        return random.sample(keys, len(keys))

    source = _shuffled(mapping(), order)
    assert configuration(**source).hash() == configuration().hash()


def test_how_a_value_is_written_does_not_matter() -> None:
    written = configuration({"hdm.learning_rate": "0.1", "hdm.steps": 3.0, "compute.shard_size": "2", "classifier.source": "torchvision"})
    assert written.hash() == configuration().hash()


def test_a_preset_and_its_settings_written_out_are_the_same() -> None:
    named = configuration(methods=["grad_cam", "hdm"], hdm={"preset": "fast"})
    assert configuration(methods=["grad_cam", "hdm"], hdm=named.settings["hdm"].model_dump(mode="json")).hash() == named.hash()
    assert configuration(methods=["grad_cam", "hdm"], hdm=None).hash() == named.hash()  # fast is the default


def test_another_process_computes_the_same_hash() -> None:
    code = "import json, sys; from pipeline.config.load import load_config; print(load_config(json.load(sys.stdin)).hash())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(mapping()), env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == configuration().hash()
    assert len(configuration().hash()) == 64


def test_the_identity_holds_the_resolved_settings() -> None:
    identity = configuration(hdm={"preset": "paper-pm"}).identity()
    assert identity["methods"]["hdm"]["sizes"] == [6, 7, 8, 9]
    assert json.loads(json.dumps(identity)) == identity
