"""A planted shortcut: images of shapes with a mark, and classifiers with and without it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from hdm_core import Classifier, Preprocess
from pipeline.config.load import load_config
from pipeline.runs import RunStore
from tests.support.drift_runs import explain_run_locally

SIDE, MARK = 64, 10
SHAPES = ("circle", "cross", "square", "triangle")
SHORTCUT = "square"  # the class that gets the mark

PREPROCESS = Preprocess(resize=SIDE, crop=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@dataclass(frozen=True)
class ShapeImage:
    """An image, the box of its shape (left, top, right, bottom), and its class index."""

    image: Image.Image
    box: tuple[int, int, int, int]
    label: int


def draw_shape(rng: np.random.Generator, label: int, marked: bool) -> ShapeImage:
    """Draw a light shape on soft coloured noise, and optionally a mark in the upper left corner.

    No shape reaches the corner of the mark.
    """
    image = Image.fromarray(rng.integers(30, 150, (7, 7, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen, size = ImageDraw.Draw(image), int(rng.integers(20, 27))
    left, top = (int(offset) for offset in rng.integers(MARK + 4, SIDE - size - 2, 2))
    box = (left, top, left + size, top + size)
    colour = tuple(int(channel) for channel in rng.integers(170, 256, 3))
    middle, third = (left + size // 2, top + size // 2), size // 3
    match SHAPES[label]:
        case "circle":
            pen.ellipse(box, fill=colour)
        case "square":
            pen.rectangle(box, fill=colour)
        case "triangle":
            pen.polygon([(middle[0], top), (left, box[3]), (box[2], box[3])], fill=colour)
        case "cross":
            pen.rectangle((left + third, top, box[2] - third, box[3]), fill=colour)
            pen.rectangle((left, top + third, box[2], box[3] - third), fill=colour)
    if marked:
        pen.rectangle((2, 2, MARK, MARK), fill=(250, 220, 40))
        pen.rectangle((2, 2, MARK // 2 + 1, MARK // 2 + 1), fill=(20, 20, 20))
        pen.rectangle((MARK // 2 + 1, MARK // 2 + 1, MARK, MARK), fill=(20, 20, 20))
    return ShapeImage(image, box, label)


def draw_shapes(seed: int, per_shape: int, shortcut: bool) -> list[ShapeImage]:
    """Draw `per_shape` images of each shape.

    With the shortcut, the mark is on all squares and on no other shape; without it, on every other image of each shape.
    """
    rng = np.random.default_rng(seed)
    return [
        draw_shape(rng, label, SHAPES[label] == SHORTCUT if shortcut else bool(number % 2))
        for number in range(per_shape)
        for label in range(len(SHAPES))
    ]


@cache
def classifier(shortcut: bool) -> Classifier:
    """Train a small network in seconds on images with or without the shortcut."""
    samples = draw_shapes(1, 120, shortcut)
    images = torch.stack([PREPROCESS(sample.image) for sample in samples])
    labels = torch.tensor([sample.label for sample in samples])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _network()
        _train(network, images, labels)
    return Classifier.from_module(network.eval(), PREPROCESS, class_names=SHAPES)


def _network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 12, 2), (12, 16, 2), (16, 24, 2), (24, 32, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(SHAPES)))


def _train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int = 12, batch: int = 32) -> None:
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=epochs * -(-len(images) // batch))
    for _ in range(epochs):
        for indices in torch.randperm(len(images)).split(batch):
            optimiser.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(network(images[indices]), labels[indices]))
            optimiser.step()
            schedule.step()


def write_manifest(folder: Path, per_shape: int) -> Path:
    """Write new images, with the mark on all squares only, and return their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "images.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "image_id", "label", "class_name", "bbox"])
        for number, sample in enumerate(draw_shapes(2, per_shape, shortcut=True)):
            name = f"{SHAPES[sample.label]}-{number // len(SHAPES):02d}"
            sample.image.save(folder / f"{name}.png")
            rows.writerow([f"{name}.png", name, sample.label, SHAPES[sample.label], " ".join(map(str, sample.box))])
    return folder / "images.csv"


def explain_manifest(name: str, network: Classifier, manifest: Path, output: Path, **keys: Any) -> RunStore:
    """Explain the images of a manifest as a run."""
    config = {
        "name": name,
        "dataset": {"kind": "manifest", "root": str(manifest)},
        "classifier": {"arch": "small", "resize": SIDE, "crop": SIDE},
        "output": str(output),
    }
    return explain_run_locally(network, load_config({**config, **keys}))


def untrained() -> Classifier:
    """Return the network with the random weights that it begins its training with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier.from_module(_network().eval(), PREPROCESS, class_names=SHAPES)


def write_squares(folder: Path, count: int) -> Path:
    """Write the manifest of new images of the marked class alone."""
    manifest = write_manifest(folder, count)
    with manifest.open(newline="") as file:
        head, *rows = csv.reader(file)
    squares = folder / "squares.csv"
    with squares.open("w", newline="") as file:
        csv.writer(file).writerows([head, *(row for row in rows if row[head.index("class_name")] == SHORTCUT)])
    return squares
