"""The real photographs, if they are next to the checkout: counts, classes, and ground truth inside the crop."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from hdm_core import Preprocess
from pipeline.datasets import Sample, list_samples, parse_dataset
from pipeline.datasets.images import read_image, read_region
from tests.support.paths import SHARED

DATA = SHARED / "data"


def samples_of(folder: str, **keys: Any) -> list[Sample]:
    root = DATA / folder
    if not root.is_dir():
        pytest.skip(f"shared/data/{folder} is not beside this checkout")
    return list_samples(parse_dataset({"root": str(root), **keys}), {})


def look(samples: list[Sample]) -> Counter[str]:
    """Count the samples per kind of region, and check that each region reaches into the crop."""
    kinds: Counter[str] = Counter()
    for sample in samples:
        picture = read_image(sample, {}, Preprocess())
        region, kind = read_region(sample, picture, Preprocess(), {})
        assert bool(region.any()) == (kind != "none"), sample.image_id
        kinds[kind] += 1
    return kinds


def test_cub() -> None:
    samples = samples_of("cub-10/CUB_200_2011", kind="cub")
    assert Counter(sample.split for sample in samples) == {"train": 220, "test": 100}
    assert len({(sample.label, sample.class_name) for sample in samples}) == 10
    test = samples_of("cub-10/CUB_200_2011", kind="cub", split="test", per_class=10)
    assert test == [sample for sample in samples if sample.split == "test"]
    assert look(test[::10]) == {"bbox": 10}


def test_palm() -> None:
    samples = samples_of("palm-224", kind="palm")
    assert Counter(sample.label for sample in samples) == {1: 213, 0: 187}
    drawn = samples_of("palm-224", kind="palm", limit=200)
    assert len(drawn) == 200
    assert look(drawn[::20]) == {"none": 10}


def test_idrid_grading() -> None:
    assert Counter(sample.label for sample in samples_of("idrid", kind="idrid", part="grading")) == {0: 134, 1: 20, 2: 136, 3: 74, 4: 49}
    referable = samples_of("idrid", kind="idrid", part="grading", referable=True)
    assert Counter(sample.class_name for sample in referable) == {"referable": 259, "not referable": 154}


def test_idrid_segmentation() -> None:
    samples = samples_of("idrid", kind="idrid", part="segmentation")
    assert len(samples) == 54
    assert look(samples[::6]) == {"segmentation": 9}
    assert look(samples_of("idrid", kind="idrid", part="segmentation", lesions=["SE"])[::6])["none"] > 0
