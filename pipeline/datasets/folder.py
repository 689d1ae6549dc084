"""A folder of images: `root/<class>/*.jpg`, or flat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import fsspec

from pipeline.config import DatasetConfig
from pipeline.datasets.sample import Sample, absolute, below, is_image, number_classes
from pipeline.errors import InputError, one_line


def folder_samples(config: DatasetConfig, storage: Mapping[str, Any]) -> list[Sample]:
    """All images below the root in the order of their paths; a subfolder's name is its images' class.

    Raises:
        InputError: if the folder is missing or cannot be read.
    """
    root = absolute(str(config.root))
    try:
        fs, base = fsspec.core.url_to_fs(root, **(storage if "://" in root else {}))
        if not fs.isdir(base):
            raise InputError(f"{root}: no such folder; set dataset.root to a folder of images")
        paths = fs.find(base)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{root}: cannot be listed ({one_line(error)}); look at dataset.root and storage") from None
    found = sorted(relative for path in paths if is_image(relative := path[len(base) :].lstrip("/")))
    url = fs.unstrip_protocol(base) if "://" in root else base
    samples = []
    for relative in found:
        parent = PurePosixPath(relative).parent
        name = parent.parts[0] if parent.parts else None
        samples.append(Sample(relative, below(url, relative), class_name=name, root=None if "://" in root else base))
    return number_classes(samples)
