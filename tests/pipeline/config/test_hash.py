"""The hash of a configuration changes with every key that changes a map, and with no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdm_core import EvidenceSettings
from hdm_core.methods.cam import CAMSettings
from hdm_core.metrics.evaluate import MetricSettings
from hdm_core.settings import HDMSettings
from pipeline.config.schema import ClassifierConfig, ComputeConfig, RunConfig
from pipeline.datasets import DATASETS
from tests.support.plans import configuration, mapping

# Another value for every key that the result depends on.
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
    "classifier.output": "logits",
    "classifier.pad": True,
    "classifier.fill": 0.5,
    "classifier.channels": 1,
    "classifier.value_range": [-1024, 1024],
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
    "hdm.loss": "linear",
    "hdm.views": ["top"],
    "hdm.areas": [0.1, 0.2],
    "hdm.edge": 0.5,
    "hdm.max_size": 12,
    "hdm.blur": 0.02,
    "hdm.schedule": "cosine",
    "hdm.average": 0.5,
    "hdm.start": "cam",
    "hdm.ensemble": [{"steps": 3}],
    "hdm.calibration": [0.1, 0.5],
    "hdm.stage_unit": "remaining",
    "hdm.mixing": "sum",
    "grad_cam.layer": "features.3",
    "metrics.names": ["deletion_auc"],
    "metrics.baseline": "blur",
    "metrics.baselines": ["mean", "blur"],
    "metrics.protocol": "rise",
    "target": 3,
    "signed": True,
    "seed": 1,
    "evidence.preset": "fast",
    "evidence.dm": {"steps": 3},
    "evidence.max_pieces": 2,
    "evidence.kept": 0.8,
    "evidence.score": "log_odds",
    "evidence.areas": [0.1, 0.2],
    "evidence.bisections": 2,
    "evidence.cells": 5,
    "evidence.margin": 0.1,
    "classifier.problem_type": "multi_label_classification",
    "compute.shard_size": 3,
    "compute.batch_size": 3,
    "compute.threads": 2,
    "compute.cuda_graphs": False,
    "compute.precision": "bfloat16",
}

# Keys of place, resources and retries, which do not change the result.
INDIFFERENT: dict[str, Any] = {
    "name": "another",
    "output": "memory://elsewhere",
    "storage": {"endpoint_url": "http://127.0.0.1:9000"},
    "compute.executor": "local",
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

# Keys that depend on each other, with a test of their own.
TOGETHER = {
    *("classifier.source", "classifier.path", "classifier.train", "classifier.factory", "classifier.arguments"),
    *("dataset.split", "dataset.part", "dataset.referable", "dataset.lesions"),
    *(f"dataset.{key}" for key in ("annotations", "label", "regions", "region_of", "labels", "label_column", "image_column")),
}

# Keys of dataset kinds that read other tools' files.
OF_A_KIND: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"kind": "coco", "root": "a", "annotations": "a.json"},
        {"annotations": "b.json", "label": "single", "regions": "boxes", "region_of": "all"},
    ),
    ({"kind": "webdataset", "root": "a"}, {"labels": "txt"}),
    ({"kind": "huggingface", "root": "a"}, {"label_column": "fine", "image_column": "img"}),
]


@pytest.mark.parametrize(("section", "changes"), OF_A_KIND)
def test_every_key_of_a_kind_changes_the_hash(section: dict[str, Any], changes: dict[str, Any]) -> None:
    hashes = {configuration(dataset={**section, key: value}).hash() for key, value in changes.items()}
    assert len(hashes | {configuration(dataset=section).hash()}) == len(changes) + 1


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
        "evidence": EvidenceSettings,
        "grad_cam": CAMSettings,
    }
    fields = {f"{name}.{field}" for name, section in sections.items() for field in section.model_fields}
    fields |= {f"dataset.{field}" for kind in DATASETS.values() for field in kind.config.model_fields}
    fields |= set(RunConfig.model_fields) - set(sections) - {"dataset"}
    assert fields == (set(OTHER) | set(INDIFFERENT) | TOGETHER) - {"dm.steps"}


def test_a_key_that_earlier_versions_did_not_have_is_part_of_the_identity_only_where_it_is_set() -> None:
    assert "output" not in configuration().identity()["classifier"]
    assert configuration({"classifier.output": 0}).identity()["classifier"]["output"] == 0


def test_the_search_for_evidence_is_part_of_the_identity_only_where_it_is_set() -> None:
    assert "evidence" not in configuration().identity()
    assert configuration(evidence=None).hash() == configuration().hash()
    assert configuration(evidence={}).identity()["evidence"]["max_pieces"] == 6


def test_signed_maps_are_part_of_the_identity_only_where_they_are_stored() -> None:
    assert "signed" not in configuration().identity()
    assert configuration(signed=False).hash() == configuration().hash()
    assert configuration(signed=True).identity()["signed"] is True


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


@pytest.mark.parametrize(
    "target", ["label", {"top": 2}, {"top": 3}, {"top": 2, "above": 0.5}, {"labels": 2}, {"contrast": [1, 0]}, "wrong", 2]
)
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
    default = configuration(methods=["grad_cam", "hdm"], hdm={"preset": "faithful"})
    assert configuration(methods=["grad_cam", "hdm"], hdm=None).hash() == default.hash() != named.hash()


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
