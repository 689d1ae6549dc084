"""What every kind of dataset promises. A new kind is tested by its line in KINDS and a dataset in MAKE."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest
from PIL import Image

from hdm_core import Preprocess
from pipeline.config.schema import DatasetConfig
from pipeline.datasets import KINDS, Masks, Sample, list_samples
from pipeline.datasets.images import read_image, read_region
from tests.support import dataset_layouts
from tests.support.plans import refused, save_picture


def _folder(root: Path) -> DatasetConfig:
    for i in range(6):
        save_picture(root / "cba"[i % 3] / f"{i}.png", seed=i)
    return DatasetConfig(kind="folder", root=str(root))


def _manifest(root: Path) -> DatasetConfig:
    for i in range(6):
        save_picture(root / f"{i}.png", 24, 20, seed=i)
    Image.new("L", (24, 20), 255).save(root / "mask.png")
    ground_truths = ["mask.png,", ",1 2 20 18", ","]
    rows = [f"{i}.png,{'cba'[i % 3]},{ground_truths[i % 3]}\n" for i in range(6)]
    (root / "manifest.csv").write_text("path,label,mask,bbox\n" + "".join(rows))
    return DatasetConfig(kind="manifest", root=str(root / "manifest.csv"))


MAKE: dict[str, Callable[[Path], DatasetConfig]] = {
    "demo": lambda _: DatasetConfig(kind="demo"),
    "cub": lambda root: DatasetConfig(kind="cub", root=str(dataset_layouts.cub(root / "CUB_200_2011", root / "segmentations"))),
    "palm": lambda root: DatasetConfig(kind="palm", root=str(dataset_layouts.palm(root))),
    "idrid": lambda root: DatasetConfig(kind="idrid", part="segmentation", root=str(dataset_layouts.idrid(root))),
    "folder": _folder,
    "manifest": _manifest,
}

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def config(kind: str, tmp_path: Path) -> DatasetConfig:
    return MAKE[kind](tmp_path)


@pytest.fixture
def samples(config: DatasetConfig) -> list[Sample]:
    return list_samples(config, {})


def test_no_kind_escapes_this_suite() -> None:
    assert set(MAKE) == set(KINDS)
    assert set(KINDS) == set(DatasetConfig.model_json_schema()["properties"]["kind"]["enum"])


@each_kind
def test_there_are_samples_with_ids_of_their_own(samples: list[Sample]) -> None:
    assert len(samples) >= 6
    assert len({sample.image_id for sample in samples}) == len(samples)
    assert all(sample.image_id for sample in samples)


@each_kind
def test_every_sample_is_a_picture_with_its_ground_truth_in_it(samples: list[Sample]) -> None:
    for sample in samples:
        picture = read_image(sample, {})
        assert picture.image.mode == "RGB"
        region, what = read_region(sample, picture, Preprocess(resize=16, crop=16), {})
        assert what == ("segmentation" if sample.masks else "bbox" if sample.bbox else "none")
        assert bool(region.any()) == (what != "none")
        if sample.bbox is not None:
            left, top, right, bottom = sample.bbox
            assert 0 <= left < right <= picture.image.width
            assert 0 <= top < bottom <= picture.image.height


@each_kind
def test_labels_are_numbers_from_zero_or_none(samples: list[Sample]) -> None:
    for sample in samples:
        assert sample.label is None or (type(sample.label) is int and sample.label >= 0)
        assert sample.class_name is None or sample.class_name
    numbers = {(sample.label, sample.class_name) for sample in samples if sample.label is not None}
    assert len({name for _, name in numbers}) == len(numbers)


@each_kind
def test_a_sample_travels_as_json_and_cannot_be_changed(samples: list[Sample]) -> None:
    for sample in samples:
        there = json.loads(json.dumps(asdict(sample)))
        masks = there["masks"] and Masks(**{**there["masks"], "paths": tuple(there["masks"]["paths"])})
        assert Sample(**{**there, "masks": masks, "bbox": there["bbox"] and tuple(there["bbox"])}) == sample
        with pytest.raises(FrozenInstanceError):
            sample.path = "elsewhere"


@each_kind
def test_it_is_listed_the_same_every_time(config: DatasetConfig, samples: list[Sample]) -> None:
    assert list_samples(config, {}) == samples
    assert list_samples(config.model_copy(update={"seed": 5}), {}) == samples


@each_kind
@pytest.mark.parametrize("draw", [{"limit": 3}, {"per_class": 1}, {"per_class": 2, "limit": 2}, {"limit": 3, "seed": 1}])
def test_a_draw_is_a_part_in_the_same_order_and_the_same_every_time(
    config: DatasetConfig, samples: list[Sample], draw: dict[str, int]
) -> None:
    config = config.model_copy(update=draw)
    drawn = list_samples(config, {})
    assert drawn
    assert drawn == [sample for sample in samples if sample in drawn]
    assert drawn == list_samples(config, {})
    assert len(drawn) <= draw.get("limit", len(samples))


@each_kind
def test_it_does_not_read_the_working_directory(config: DatasetConfig, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert list_samples(config, {}) == samples
    assert all("://" in sample.path or Path(sample.path).is_absolute() for sample in samples)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "demo"])
def test_a_root_that_is_missing_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    root = str(tmp_path / "nowhere")
    config = DatasetConfig(kind=kind, root=root, part="grading" if kind == "idrid" else None)
    message = refused(lambda: list_samples(config, {}))
    assert root in message
    assert "dataset.root" in message
