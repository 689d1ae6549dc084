"""A folder of images: `root/<class>/*.jpg`, or flat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.config.schema import DatasetConfig
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Sample, as_text, is_image, number_classes


def folder_samples(config: DatasetConfig, storage: Mapping[str, Any]) -> list[Sample]:
    """All images below the root in the order of their paths; a subfolder's name is its images' class.

    Raises:
        InputError: if the folder is missing or cannot be read.
    """
    root = Root.at(str(config.root), storage, "a folder of images")
    samples = []
    for relative in filter(is_image, root.find()):
        parent = PurePosixPath(relative).parent
        name = parent.parts[0] if parent.parts else None
        samples.append(Sample(as_text(relative), root.path(relative), class_name=name and as_text(name), root=root.local))
    return number_classes(samples)
