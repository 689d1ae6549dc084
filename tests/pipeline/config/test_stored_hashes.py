"""Hashes of stored runs and trainings: a new version computes the same, so that they stay readable and comparable."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.load import load, load_config
from pipeline.config.schema import RunConfig
from pipeline.training.config import TrainConfig
from pipeline.training.run import train_presets
from tests.support.plans import configuration

# Computed by version 0.1.0. A hash is stored with every run and every training: a change makes all of them another run. The paper's
# experiments and their trainings have other hashes on purpose: they resize images to 224 x 224 exactly since then. So have presets whose
# shards held fewer images, SHARD_SIZES, than a GPU computes at once.
PRESETS = {
    "demo": "bbf0f7826020f5bf803822f2b106ba11ed4e00eecd3331877878b21f83ad4f03",  # another than before `faithful` was the default
    "cub-full": "a448bd7eb2ec0be9bafccae0cc510aa106a2ff0547b4dfa6204c00bbb56525d9",
    "pm-full": "63852b1f768cf4b732c16ea68a15970ccc03b573d8ef65c31e4c1ff6282e7e84",
    "ablation": "4b52030933e3bfb23df0ad3b2c533665134ed53989396a70b04854cee03dd265",
}
TRAININGS = {
    "cub": "e44435580979ddcd0eddf97d532dc3fdb21cadde821517b2e3a1c9f913fc8a1c",
    "cub-mobilenet": "518ce5ea624614fb51b6468779412fd675f4bd44a235e882bbe22012665a3739",
    "idrid-mobilenet": "515d457898b987dd628533cbcb2b49e9f1cd3ca508742b1a289cfb02691235b1",
    "palm": "5a3333db727631f80852ea153f4b4f904013b74af24cd3fdfe907f26bf5ac5cc",
    "palm-mobilenet": "e94f74c6cd6742461f208ed79e3321137deddcc227ae294553b9a3dbc78acac0",
}
SHARD_SIZES = {"demo": 1, "cub-full": 64, "pm-full": 32, "ablation": 1}
EXACT = {"cub-full", "pm-full", "cub", "palm"}
DATASETS: dict[str, dict[str, Any]] = {
    "feddc153b91362f5fbf4bac855a8d160db6cd901a113b17a26651397a7d0fb15": {"kind": "demo"},
    "43945bed30cb5547d02635ee0c831bd33c33affcf7ec4e126bc624e42bb192eb": {"kind": "cub", "root": "birds", "split": "test", "per_class": 2},
    "31c1181e699bf21f4cb568190efaafbe67fdcb03b6721cd80b972bab82b1edf7": {
        "kind": "palm",
        "root": "palm",
        "lesions": ["Atrophy"],
        "limit": 5,
        "seed": 3,
    },
    "3ed31b75e40989fcd75f374c2efd438499982e9c413628ee23bc2648c46d28f6": {
        "kind": "idrid",
        "root": "idrid",
        "part": "grading",
        "referable": True,
        "split": "train",
    },
    "f58cd46659f8856a4eda9ecc81f223056609fed091b0ab8f56b9d2dfa9e4ffec": {
        "kind": "idrid",
        "root": "idrid",
        "part": "segmentation",
        "lesions": ["EX", "OD"],
    },
    "d4204dd6f303fe0b42d56d20a6409471ac2679466cab156bf950014f6f2a55da": {
        "kind": "folder",
        "root": "photographs",
        "splits": "split.csv",
        "split": "test",
    },
    "06ce999431eb888895a685260165d422da49def5f1007afbfa086fe18f370426": {"kind": "manifest", "root": "m.csv", "split": "a"},
}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "af940a38254a370a54b37745190ac99e6f33cf012efc50799064afaf3084d674": {
        "source": "torchvision",
        "arch": "resnet50",
        "weights": "DEFAULT",
        "crop": 64,
    },
    "fadb61706caa85ecb66b2cb6a328fb5c4c3b366da53c2ebada27c0e7c692d214": {"source": "checkpoint", "path": "classifiers/cub", "train": "cub"},
    "0965adf1729ab0879242a87fdea445dd4be29ba12635f08fb441f73fe0cd44c4": {
        "source": "checkpoint",
        "path": "w.pth",
        "arch": "resnet18",
        "classes": ["a", "b"],
    },
    "298b04df135e60a6ba0b7ce71a539d5e406f6872beb82e4b2a7e80b2c8f6e1aa": {
        "source": "exported",
        "path": "n.pt2",
        "classes": 4,
        "mean": [0.5, 0.5, 0.5],
    },
    "0120f1b792c00898e2a999ab01e478f5dcdffb85b7803da1c2fb6c5998b2798d": {"source": "import", "factory": "m:make", "arguments": {"n": 2}},
    "466cbe269ee4ed1b03ae195485710184d0fb235631cc9161cec0c263eb8515a9": {
        "source": "timm",
        "arch": "resnet18",
        "path": "w.safetensors",
        "classes": "names.txt",
    },
}
KEYS = {"kind", "root", "split", "splits", "part", "referable", "lesions", "per_class", "limit", "seed"}


def run(section: str, value: dict[str, Any]) -> RunConfig:
    source = {"name": "r", "dataset": {"kind": "demo"}, "classifier": {"arch": "mobilenet_v2", "weights": "IMAGENET1K_V1"}}
    return load_config({**source, "methods": ["hdm", "grad_cam"], "hdm": {"preset": "fast"}, "output": "runs", section: value})


@pytest.mark.parametrize("name", PRESETS)
def test_the_hash_of_a_preset_is_unchanged(name: str) -> None:
    section = load_config(name, {"dataset.root": "photographs"}).classifier
    assert section.resize == ((224, 224) if name in EXACT else None)
    changes = {"dataset.root": "photographs", "classifier.resize": None, "compute.shard_size": SHARD_SIZES[name]}
    assert load_config(name, changes).hash() == PRESETS[name]


@pytest.mark.parametrize("name", TRAININGS)
def test_the_hash_of_a_training_is_unchanged(name: str) -> None:
    assert load(name, {"dataset.root": "d"}, TrainConfig, train_presets()).classifier.resize == ((224, 224) if name in EXACT else None)
    assert load(name, {"dataset.root": "d", "classifier.resize": None}, TrainConfig, train_presets()).hash() == TRAININGS[name]


@pytest.mark.parametrize("expected", DATASETS, ids=[f"{kind['kind']}-{number}" for number, kind in enumerate(DATASETS.values())])
def test_the_hash_of_a_kind_of_dataset_is_unchanged(expected: str) -> None:
    assert run("dataset", DATASETS[expected]).hash() == expected


@pytest.mark.parametrize("expected", CLASSIFIERS, ids=[f"{each['source']}-{number}" for number, each in enumerate(CLASSIFIERS.values())])
def test_the_hash_of_a_classifier_source_is_unchanged(expected: str) -> None:
    assert run("classifier", CLASSIFIERS[expected]).hash() == expected


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=[f"{kind['kind']}-{number}" for number, kind in enumerate(DATASETS.values())])
def test_a_stored_configuration_has_the_keys_of_all_built_in_kinds_and_loads_again(dataset: dict[str, Any]) -> None:
    config = configuration(dataset=dataset)
    stored = config.model_dump(mode="json")
    assert set(stored["dataset"]) == set(config.identity()["dataset"]) == KEYS
    assert load_config(stored) == RunConfig.model_validate_json(config.model_dump_json()) == config
