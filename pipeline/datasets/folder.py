"""Dataset kind `folder`: images below a folder, `root/<class>/*.jpg` or flat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field

from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Sample, as_text, is_image, number_classes


class FolderConfig(DatasetConfig):
    """Configuration of a folder of images."""

    root_description = "a folder of images"
    has_splits = False

    kind: Literal["folder"] = Field(description="All images below a folder; the name of a subfolder is the class of its images.")


def read_folder(config: FolderConfig, storage: Mapping[str, Any]) -> list[Sample]:
    """List all images below the root in the order of their paths.

    The name of a subfolder is the class of its images.

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


FOLDER = DatasetKind("folder", FolderConfig, read_folder)
