"""Dataset kind `demo`: six photographs that the scikit-image package ships."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from pydantic import Field

from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.sample import Sample
from pipeline.errors import InputError

# File, object, and a box around the object (left, top, right, bottom), drawn by eye for this demo.
_PHOTOGRAPHS = (
    ("chelsea.png", "cat", (40.0, 0.0, 350.0, 300.0)),
    ("coffee.png", "cup of coffee", (75.0, 10.0, 480.0, 385.0)),
    ("astronaut.png", "astronaut", (30.0, 10.0, 370.0, 512.0)),
    ("rocket.jpg", "rocket", (285.0, 120.0, 350.0, 427.0)),
    ("motorcycle_left.png", "motorcycle", (70.0, 70.0, 690.0, 460.0)),
    ("camera.png", "camera on a tripod", (225.0, 130.0, 340.0, 512.0)),
)


class DemoConfig(DatasetConfig):
    """Configuration of the demo."""

    root_description = None
    has_splits = False

    kind: Literal["demo"] = Field(description="Six photographs of scikit-image with a box each; needs the extra `demo`.")


def read_demo(config: DemoConfig, storage: Mapping[str, Any]) -> list[Sample]:
    """List the photographs, which have no labels.

    Raises:
        InputError: if scikit-image is not installed.
    """
    try:
        folder = resources.files("skimage") / "data"
    except ModuleNotFoundError:
        raise InputError("dataset.kind demo: its photographs come with scikit-image; pip install 'hdm-pipeline[demo]'") from None
    return [Sample(file, str(folder / file), class_name=name, bbox=box) for file, name, box in _PHOTOGRAPHS]


DEMO = DatasetKind("demo", DemoConfig, read_demo)
