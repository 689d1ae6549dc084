"""Comparison before and after a real retraining; needs the photographs beside the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from hdm_core import Classifier
from pipeline.config.load import load, load_config
from pipeline.datasets import list_samples
from pipeline.datasets.images import read_image
from pipeline.drift import compare, write_drift
from pipeline.drift.summary import rank_flipped
from pipeline.training.config import TrainConfig
from pipeline.training.run import train, train_presets
from tests.pipeline.datasets.test_shared_data import samples_of
from tests.support.drift_runs import explain_run_locally
from tests.support.paths import SHARED

BIRDS = SHARED / "data/cub-10/CUB_200_2011"
DATA = {"kind": "cub", "root": str(BIRDS)}
SMALL = {"resize": 72, "crop": 64}  # seconds instead of minutes

HEAD = {"epochs": 3, "train": "head", "learning_rate": 3e-3}
ALL = {"epochs": 2, "learning_rate": 3e-4}


def train_birds(output: Path, name: str, *stages: dict[str, Any]) -> Path:
    """Train a classifier of the ten birds and return its folder."""
    recipe = {"stages": list(stages), "batch": 20, "statistics": "pretrained", "augmentation": {"colour": 0}}
    config = {
        "name": name,
        "dataset": {**DATA, "split": "train", "per_class": 5},
        "test": 0.2,
        "classifier": {"arch": "mobilenet_v2", "weights": "IMAGENET1K_V1", **SMALL},
        "recipe": recipe,
        "compute": {"threads": 1},
        "output": str(output),
    }
    return Path(train(load(config, None, TrainConfig, train_presets())).url)


@pytest.mark.slow
def test_a_classifier_that_was_trained_again(tmp_path: Path) -> None:
    samples_of("cub-10/CUB_200_2011", kind="cub")  # skips the test if they are missing
    predictions, runs = [], []
    for name, stages in (("march", [HEAD]), ("april", [HEAD, ALL])):
        folder = train_birds(tmp_path, name, *stages)
        classifier = Classifier.from_checkpoint(folder)
        config = load_config(
            {
                "name": f"run-{name}",
                "dataset": {**DATA, "split": "test", "per_class": 2},
                "classifier": {"source": "checkpoint", "path": str(folder)},
                "methods": ["grad_cam"],
                "compute": {"shard_size": 8},
                "output": str(tmp_path),
            }
        )
        runs.append(explain_run_locally(classifier, config))
        images = [read_image(sample, {}, classifier.preprocess).image for sample in list_samples(config.dataset, {})]
        with classifier.frozen() as network, torch.no_grad():
            predictions.append(network(classifier.prepare(images)).argmax(1))
    drift = compare(*runs)
    page = Path(write_drift(runs[1], drift)).read_text()

    flips = (predictions[0] != predictions[1]).nonzero()[:, 0].tolist()
    assert flips, "the backbone was trained, too"
    assert sorted(rank_flipped(drift.table)) == flips
    assert f"{len(flips)} of 20 images" in page
    overall = {found.quantity: found.estimate for found in drift.statistics if found.class_name is None}
    assert overall["flips"].mean == len(flips) / 20
    assert 0 < overall["drift"].low < overall["drift"].high < 1
    table = pq.read_table(f"{runs[1].url}/drift.parquet")
    assert overall["proportion"].n == overall["spearman"].n == table["status"].to_pylist().count("ok") > 15, "every bird has a box"
    assert len(set(table["class_name"].to_pylist())) == 10
    assert page.count("as the network saw it") == page.count("<article>") > 0
