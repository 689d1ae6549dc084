"""A dataset kind from outside: squares of one colour, generated into its root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from pipeline.datasets import DatasetConfig, DatasetKind, Sample
from pipeline.errors import InputError

COLOURS = ("red", "green", "blue")


class SquaresConfig(DatasetConfig):
    root_description = "a folder to write squares to"

    kind: Literal["squares"]
    side: int = Field(16, ge=8, description="Side of a square in pixels.")


def read_squares(config: SquaresConfig, storage: Mapping[str, Any]) -> list[Sample]:
    root = Path(str(config.root)).absolute()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; set dataset.root to a folder to write squares to")
    samples = []
    for i in range(6):
        colour = COLOURS[i % 3]
        path = root / f"{i}.png"
        if not path.exists():
            Image.new("RGB", (config.side, config.side), colour).save(path)
        box = (0.0, 0.0, float(config.side), float(config.side))
        samples.append(Sample(f"{i}", str(path), i % 3, colour, split="test" if i < 3 else "train", bbox=box, root=str(root)))
    return samples


SQUARES = DatasetKind("squares", SquaresConfig, read_squares)
