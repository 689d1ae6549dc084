"""Contract of a dataset kind, for the tests of a kind.

`check_dataset("cub", make)` runs all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hdm_core import Preprocess
from pipeline.datasets.images import read_image, read_region
from pipeline.datasets.kind import DatasetConfig
from pipeline.datasets.registry import DATASETS, parse_dataset
from pipeline.datasets.sample import Masks, Sample
from pipeline.datasets.samples import list_samples
from pipeline.datasets.shapes import is_segmented
from pipeline.errors import InputError

_SELECTIONS: tuple[dict[str, int], ...] = ({"limit": 3}, {"per_class": 1}, {"per_class": 2, "limit": 2}, {"limit": 3, "seed": 1})


def check_dataset(kind: str, make: Callable[[Path], DatasetConfig]) -> None:
    """Check every promise of a dataset kind on a small dataset.

    Args:
        kind: id of the kind in the registry.
        make: writes a dataset of six images or more, at least two per class, into an empty folder and returns its configuration.

    Raises:
        AssertionError: naming the first promise that does not hold.
    """
    with TemporaryDirectory() as folder:
        config = make(Path(folder))
        _require(config.kind == kind, f"the configuration has the kind {config.kind!r}, not {kind!r}")
        for check in CHECKS:
            check(config)


def check_registration(config: DatasetConfig) -> None:
    """Check that the registry has the kind, and that its configuration survives JSON."""
    _require(config.kind in DATASETS, f"no kind {config.kind!r} in the registry")
    _require(type(config) is DATASETS[config.kind].config, f"the configuration is a {type(config).__name__}, not that of the kind")
    _require(parse_dataset(json.loads(config.model_dump_json())) == config, "the configuration changes on its way through JSON")


def check_ids(config: DatasetConfig) -> None:
    """Check that there are at least six samples, with unique ids that are not empty."""
    samples = list_samples(config, {})
    _require(len(samples) >= 6, f"only {len(samples)} samples")
    _require(all(sample.image_id for sample in samples), "an id is empty")
    _require(len({sample.image_id for sample in samples}) == len(samples), "two samples have the same id")


def check_images(config: DatasetConfig) -> None:
    """Check that every image can be decoded, and that its ground truth lies inside it."""
    for sample in list_samples(config, {}):
        image = read_image(sample, {})
        _require(getattr(image.image, "mode", None) == "RGB", f"{sample.image_id}: not RGB")
        region, kind = read_region(sample, image, Preprocess(resize=16, crop=16), {})
        is_mask = sample.masks or (sample.shapes and is_segmented(sample.shapes))
        expected = "segmentation" if is_mask else "bbox" if sample.bbox or sample.shapes else "none"
        _require(kind == expected, f"{sample.image_id}: the region is {kind}, not {expected}")
        _require(bool(region.any()) == (kind != "none"), f"{sample.image_id}: the region {kind} is empty")
        if sample.bbox is not None:
            left, top, right, bottom = sample.bbox
            inside = 0 <= left < right <= image.size[0] and 0 <= top < bottom <= image.size[1]
            _require(inside, f"{sample.image_id}: the box {sample.bbox} is not inside the image")


def check_labels(config: DatasetConfig) -> None:
    """Check that labels are integers from 0 or None.

    Each class name must have exactly one label.
    """
    samples = list_samples(config, {})
    for sample in samples:
        _require(sample.label is None or (type(sample.label) is int and sample.label >= 0), f"{sample.image_id}: label {sample.label!r}")
        _require(sample.class_name is None or bool(sample.class_name), f"{sample.image_id}: empty class name")
    classes = {(sample.label, sample.class_name) for sample in samples if sample.label is not None}
    _require(len({name for _, name in classes}) == len(classes), "a class name has two labels")


def check_json(config: DatasetConfig) -> None:
    """Check that samples are unchanged after a conversion to JSON and back."""
    for sample in list_samples(config, {}):
        values: dict[str, Any] = json.loads(json.dumps(asdict(sample)))
        masks = values["masks"] and Masks(**{**values["masks"], "paths": tuple(values["masks"]["paths"])})
        copy = Sample(**{**values, "masks": masks, "bbox": values["bbox"] and tuple(values["bbox"])})
        _require(copy == sample, f"{sample.image_id}: changes on its way through JSON")


def check_order(config: DatasetConfig) -> None:
    """Check that the order is the same every time, whatever the seed."""
    samples = list_samples(config, {})
    _require(list_samples(config, {}) == samples, "a second listing differs")
    _require(list_samples(config.model_copy(update={"seed": 5}), {}) == samples, "the listing depends on the seed")


def check_selection(config: DatasetConfig) -> None:
    """Check that a random selection is reproducible.

    It must be a part of the dataset, in the dataset's order.
    """
    samples = list_samples(config, {})
    for selection in _SELECTIONS:
        drawn = list_samples(config.model_copy(update=selection), {})
        _require(bool(drawn), f"{selection}: nothing is drawn")
        _require(drawn == [sample for sample in samples if sample in drawn], f"{selection}: not in the dataset's order")
        _require(drawn == list_samples(config.model_copy(update=selection), {}), f"{selection}: differs the second time")
        _require(len(drawn) <= selection.get("limit", len(samples)), f"{selection}: too many samples")


def check_paths(config: DatasetConfig) -> None:
    """Check that paths are absolute or URLs.

    They must not depend on the working directory.
    """
    samples = list_samples(config, {})
    with chdir("/"):
        _require(list_samples(config, {}) == samples, "the listing depends on the working directory")
    _require(all("://" in sample.path or Path(sample.path).is_absolute() for sample in samples), "a path is relative")


def check_missing_root(config: DatasetConfig) -> None:
    """Check that a missing root is refused in one line.

    The line must name the root and the key to change.
    """
    if config.root_description is None:
        return
    root = f"{config.root}-is-not-there"
    try:
        list_samples(config.model_copy(update={"root": root}), {})
    except InputError as error:
        message = str(error)
        _require("\n" not in message, "the error of a missing root has several lines")
        _require(root in message and "dataset.root" in message, f"the error names not both the missing root and dataset.root: {message}")
    else:
        raise AssertionError("a missing root is not refused")


CHECKS: tuple[Callable[[DatasetConfig], None], ...] = (
    check_registration,
    check_ids,
    check_images,
    check_labels,
    check_json,
    check_order,
    check_selection,
    check_paths,
    check_missing_root,
)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise AssertionError(problem)
