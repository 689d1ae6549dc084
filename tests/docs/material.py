"""Files and variables that the blocks of the pages expect: finished runs, photographs, classifiers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from hdm_core import Classifier
from hdm_core.network.logits import class_logits
from hdm_core.sources.checkpoint import Card, save_checkpoint
from pipeline.drift import compare, write_drift
from pipeline.runs import RunStore
from pipeline.tables.aggregate import aggregate
from tests.support import report_runs
from tests.support.drift_runs import stored_run
from tests.support.huggingface import save_vit
from tests.support.plans import configuration, plan_of, results, save_picture

CLASSES = ("crow", "owl", "wren")
FACTORY = """
import torch
import torchvision

def make(classes):
    return torchvision.models.squeezenet1_1(num_classes=classes)

def xray():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

class TwoHeads(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.species, self.age = make(classes), make(2)

    def forward(self, images):
        return {"heads": {"species": self.species(images), "age": self.age(images)}}
"""
# Words of a block or a section that need a package which may not be installed.
OPTIONAL = {"transformers": "transformers"}


def make_run(output: str, storage: dict[str, object] | None = None, done: int = 3, name: str = "demo") -> RunStore:
    """Write a run of five images in three shards, of which the first are done; its maps and numbers are made up."""
    plan = plan_of(configuration(name=name, output=output, storage=storage or {}))
    store = RunStore.from_config(plan.config)
    store.create(plan)
    for shard in plan.shards[:done]:
        store.write_shard(shard, *results(plan, shard), plan.config)
    aggregate(store)
    return store


def make_models(folder: Path) -> nn.Module:
    """Write the classifiers of docs/models.md in every format, and return the network that they hold."""
    import timm

    network = torchvision.models.mobilenet_v2(num_classes=len(CLASSES)).eval()
    save_checkpoint(network, Card(arch="mobilenet_v2", classes=CLASSES), folder / "models/birds")
    torch.save({"state_dict": network.state_dict()}, folder / "birds.pth")
    googlenet = torchvision.models.googlenet(weights=None, num_classes=len(CLASSES), init_weights=False, aux_logits=False)
    torch.save(googlenet.state_dict(), folder / "birds_googlenet.pth")
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=len(CLASSES)).state_dict(), folder / "birds_vit.pth")
    (folder / "birds.txt").write_text("\n".join(CLASSES))
    (folder / "my_models.py").write_text(FACTORY)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(network, (torch.rand(2, 3, 224, 224),), dynamic_shapes=shapes), folder / "model.pt2")
    save_picture(folder / "photo.png", 300, 260)
    if not missing("transformers"):
        save_vit(folder / "models/vit", CLASSES)
    return network


def missing(text: str) -> str:
    """Return the package that a block needs and that is not installed; empty if there is none."""
    return next((package for word, package in OPTIONAL.items() if word in text and importlib.util.find_spec(package) is None), "")


def check_classifier(classifier: Classifier, classes: tuple[str, ...] | None) -> None:
    """Check that a classifier of docs/models.md takes a photograph and returns logits for its classes."""
    images = classifier.prepare([Image.open("photo.png")])
    assert images.shape == (1, 1 if classifier.name == "my_models:xray" else 3, 224, 224)
    with classifier.frozen() as module, torch.no_grad():
        logits = class_logits(module, images)
    assert classifier.class_names is not None
    assert logits.shape == (1, len(classifier.class_names))
    assert classes in (None, classifier.class_names)


def finished_runs(folder: Path) -> dict[str, Any]:
    """Write runs/demo and runs/mine, and two photographs."""
    make_run(str(folder / "runs"))
    make_run(str(folder / "runs"), name="mine")
    for name in ("cat.jpg", "dog.jpg"):
        save_picture(folder / name, 300, 260)
    return {}


def run_with_photographs(folder: Path) -> dict[str, Any]:
    """Write runs/demo, whose photographs exist."""
    (folder / "photographs").mkdir()
    (folder / "runs").mkdir()
    Path(report_runs.stored_run(folder / "photographs").url).rename(folder / "runs/demo")
    return {}


def two_runs(folder: Path) -> dict[str, Any]:
    """Write runs/march and runs/april over the same images, compared as `hdm diff` does."""
    before, after = (stored_run(folder / "runs", name) for name in ("march", "april"))
    write_drift(after, compare(before, after))
    return {}


def models(folder: Path) -> dict[str, Any]:
    """Write the classifiers, and give the name `model` that docs/models.md uses for a network of one's own."""
    sys.modules.pop("my_models", None)
    return {"model": make_models(folder)}


MATERIAL: dict[str, Callable[[Path], dict[str, Any]]] = {
    "README.md": finished_runs,
    "docs/analysis.md": finished_runs,
    "docs/operations.md": finished_runs,
    "docs/drift.md": two_runs,
    "docs/export.md": run_with_photographs,
    "docs/models.md": models,
}


def enter(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make the folder of a page, change into it, and return the names that its blocks start with."""
    names = MATERIAL[page](folder) if page in MATERIAL else {}
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return {"__name__": "__main__", **names}
