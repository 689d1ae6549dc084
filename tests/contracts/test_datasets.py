"""The contract of every dataset kind. A new kind is tested by its line in the registry and a dataset in MAKE."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from hdm_core.registry import Registry
from pipeline.datasets import DATASETS, DatasetConfig, DatasetKind, Sample, list_samples, parse_dataset
from pipeline.datasets.demo import DEMO
from pipeline.datasets.folder import FOLDER, read_folder
from pipeline.datasets.testing import CHECKS, check_dataset
from tests.support import dataset_layouts
from tests.support.plans import save_picture


def _folder(root: Path) -> DatasetConfig:
    for i in range(6):
        save_picture(root / "cba"[i % 3] / f"{i}.png", seed=i)
    return parse_dataset({"kind": "folder", "root": str(root)})


def _manifest(root: Path) -> DatasetConfig:
    for i in range(6):
        save_picture(root / f"{i}.png", 24, 20, seed=i)
    Image.new("L", (24, 20), 255).save(root / "mask.png")
    ground_truths = ["mask.png,", ",1 2 20 18", ","]
    rows = [f"{i}.png,{'cba'[i % 3]},{ground_truths[i % 3]}\n" for i in range(6)]
    (root / "manifest.csv").write_text("path,label,mask,bbox\n" + "".join(rows))
    return parse_dataset({"kind": "manifest", "root": str(root / "manifest.csv")})


def _cub(root: Path) -> DatasetConfig:
    return parse_dataset({"kind": "cub", "root": str(dataset_layouts.cub(root / "CUB_200_2011", root / "segmentations"))})


def _coco(root: Path) -> DatasetConfig:
    objects = []
    for i in range(6):
        save_picture(root / "images" / f"{i}.png", seed=i)
        objects += [{"id": 2 * i + j, "image_id": i, "category_id": i % 2, "bbox": [j, 2, 9, 9], "area": 81} for j in (0, 9)]
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "ant"}]
    images = [{"id": i, "file_name": f"{i}.png", "width": 24, "height": 20} for i in range(6)]
    file = root / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return parse_dataset({"kind": "coco", "root": str(root / "images"), "annotations": str(file), "regions": "boxes"})


def _webdataset(root: Path) -> DatasetConfig:
    for number in range(2):
        with tarfile.open(root / f"{number}.tar", "w") as tar:
            for i in range(3):
                picture = save_picture(root / "unpacked" / f"{i}.png", seed=i)
                tar.add(picture, picture.name)
                picture.with_suffix(".cls").write_text(("ant", "bee")[(i + number) % 2])
                tar.add(picture.with_suffix(".cls"), f"{i}.cls")
    shutil.rmtree(root / "unpacked")
    return parse_dataset({"kind": "webdataset", "root": str(root)})


def _huggingface(root: Path) -> DatasetConfig:
    images = [{"bytes": save_picture(root / "x.png", seed=i).read_bytes(), "path": None} for i in range(6)]
    (root / "x.png").unlink()
    pyarrow.parquet.write_table(pa.table({"image": images, "label": ["ant", "bee"] * 3}), root / "train.parquet", row_group_size=4)
    return parse_dataset({"kind": "huggingface", "root": str(root)})


MAKE: dict[str, Callable[[Path], DatasetConfig]] = {
    "demo": lambda _: parse_dataset({"kind": "demo"}),
    "cub": _cub,
    "palm": lambda root: parse_dataset({"kind": "palm", "root": str(dataset_layouts.palm(root))}),
    "idrid": lambda root: parse_dataset({"kind": "idrid", "part": "segmentation", "root": str(dataset_layouts.idrid(root))}),
    "folder": _folder,
    "manifest": _manifest,
    "coco": _coco,
    "webdataset": _webdataset,
    "huggingface": _huggingface,
}


def test_no_kind_escapes_this_suite() -> None:
    assert set(MAKE) == set(DATASETS)
    assert all(DATASETS[kind].id == kind for kind in DATASETS)


@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_kind_keeps_every_promise(kind: str, check: Callable[[DatasetConfig], None], tmp_path: Path) -> None:
    check(MAKE[kind](tmp_path))


def test_a_sample_cannot_be_changed(tmp_path: Path) -> None:
    for sample in list_samples(_folder(tmp_path), {}):
        with pytest.raises(FrozenInstanceError):
            sample.path = "elsewhere"  # type: ignore[misc]


def test_the_contract_is_one_line() -> None:
    check_dataset("folder", _folder)


def _broken(change: Callable[[int, Sample], Sample]) -> DatasetKind[Any]:
    """The kind `folder`, with a reader that changes every sample."""

    def read(config: Any, storage: Any) -> list[Sample]:
        return [change(i, sample) for i, sample in enumerate(read_folder(config, storage))]

    return DatasetKind("folder", FOLDER.config, read)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda i, sample: replace(sample, image_id=""), "an id is empty|two images have the id"),
        (lambda i, sample: replace(sample, path=Path(sample.path).name), "leads out of the dataset's root"),
        (lambda i, sample: replace(sample, label=-1), "label -1"),
        (lambda i, sample: replace(sample, label=i), "a class name has two labels"),
        (lambda i, sample: replace(sample, bbox=(0.0, 0.0, 900.0, 900.0)), "is not inside the image"),
    ],
)
def test_the_contract_notices_a_reader_that_breaks_it(
    change: Callable[[int, Sample], Sample], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "folder", _broken(change))
    with pytest.raises(Exception, match=problem):
        check_dataset("folder", _folder)


def test_a_registry_refuses_a_second_entry_of_an_id() -> None:
    with pytest.raises(ValueError, match="there is a DatasetKind 'demo' already"):
        Registry("hdm.nothing", DatasetKind, (DEMO,))._add(DEMO)
