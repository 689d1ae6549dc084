"""Datasets in an object store: a real S3 server gives the same samples and the same pixels as the disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from hdm_core import Preprocess
from pipeline.datasets import DATASETS, DatasetConfig, Masks, Sample, list_samples, parse_dataset
from pipeline.datasets.batches import LoadedSample, read_batches
from pipeline.datasets.images import UnreadableError, read_image, read_region
from tests.pipeline.datasets.test_contained import picture, write_parquet, write_tar
from tests.support import dataset_layouts
from tests.support.plans import configuration, refused, save_picture
from tests.support.s3_server import S3

PREPROCESS = Preprocess(resize=16, crop=16)


def folder(root: Path) -> DatasetConfig:
    for name in ("cat/1 é.png", "cat/2.png", "ant/3.png"):
        save_picture(root / name)
    return parse_dataset({"kind": "folder", "root": str(root)})


def manifest(root: Path) -> DatasetConfig:
    """Write a manifest with relative paths, a mask and a box."""
    for i in range(3):
        save_picture(root / "images" / f"{i}.png", dataset_layouts.WIDTH, dataset_layouts.HEIGHT, seed=i)
    dataset_layouts.save_mask(root / "masks" / "0.png", (3, 3, 9, 9))
    (root / "m.csv").write_text("path,label,mask,bbox\nimages/0.png,cat,masks/0.png,\nimages/1.png,ant,,1 2 9 9\nimages/2.png,cat,,\n")
    return parse_dataset({"kind": "manifest", "root": str(root / "m.csv")})


def cub(root: Path) -> DatasetConfig:
    folder = dataset_layouts.cub(root / "CUB_200_2011", root / "segmentations")
    return parse_dataset({"kind": "cub", "split": "test", "root": str(folder)})


def coco(root: Path) -> DatasetConfig:
    save_picture(root / "images" / "a.png")
    box = {"id": 0, "image_id": 0, "category_id": 0, "bbox": [1, 2, 9, 9], "segmentation": [[1, 2, 9, 2, 9, 9]]}
    content = {"images": [{"id": 0, "file_name": "a.png"}], "categories": [{"id": 0, "name": "ant"}], "annotations": [box]}
    (root / "a.json").write_text(json.dumps(content))
    return parse_dataset({"kind": "coco", "root": str(root / "images"), "annotations": str(root / "a.json")})


def webdataset(root: Path) -> DatasetConfig:
    write_tar(root / "a.tar", {f"{i}.png": picture(root / "x", i) for i in range(3)})
    return parse_dataset({"kind": "webdataset", "root": str(root)})


def huggingface(root: Path) -> DatasetConfig:
    write_parquet(root / "a.parquet", [picture(root / "x", i) for i in range(3)], [0, 1, 0], ["ant", "bee"])
    return parse_dataset({"kind": "huggingface", "root": str(root)})


MAKE: dict[str, Callable[[Path], DatasetConfig]] = {
    "folder": folder,
    "manifest": manifest,
    "cub": lambda root: parse_dataset(
        {"kind": "cub", "split": "test", "root": str(dataset_layouts.cub(root / "CUB_200_2011", root / "segmentations"))}
    ),
    "palm": lambda root: parse_dataset({"kind": "palm", "root": str(dataset_layouts.palm(root))}),
    "idrid": lambda root: parse_dataset({"kind": "idrid", "part": "segmentation", "root": str(dataset_layouts.idrid(root))}),
    "coco": coco,
    "webdataset": webdataset,
    "huggingface": huggingface,
}


def in_s3(here: str, base: Path, s3: S3) -> str:
    """Return the URL of a path; that of the file around it in an address."""
    address, separator, file = here.rpartition("::")
    return f"{address}{separator}{s3.url}/{Path(file).relative_to(base)}".removesuffix("/.")


def seen(sample: Sample, storage: dict[str, Any]) -> tuple[str, np.ndarray, torch.Tensor, str]:
    picture = read_image(sample, storage, PREPROCESS)
    return picture.sha256, np.asarray(picture.image), *read_region(sample, picture, PREPROCESS, storage)


@pytest.mark.parametrize("kind", MAKE)
def test_a_dataset_in_s3_is_the_dataset_on_the_disk(kind: str, tmp_path: Path, s3: S3) -> None:
    config = MAKE[kind](tmp_path)
    s3.upload(tmp_path)
    here = list_samples(config, {})
    there = list_samples(config.model_copy(update={"root": in_s3(str(config.root), tmp_path, s3)}), s3.storage)
    for mine, other in zip(here, there, strict=True):
        assert other.path == in_s3(mine.path, tmp_path, s3)
        masks = mine.masks and Masks(tuple(in_s3(path, tmp_path, s3) for path in mine.masks.paths), mine.masks.ink)
        assert other == replace(mine, path=other.path, root=None, masks=masks)
        for one, two in zip(seen(mine, {}), seen(other, s3.storage), strict=True):
            np.testing.assert_array_equal(one, two)


def test_every_kind_with_a_root_is_read_from_s3_here() -> None:
    assert set(MAKE) == set(DATASETS) - {"demo"}


def test_a_manifest_on_the_disk_may_point_into_s3(tmp_path: Path, s3: S3) -> None:
    (tmp_path / "up").mkdir()
    save_picture(tmp_path / "up" / "a.png", dataset_layouts.WIDTH, dataset_layouts.HEIGHT)
    dataset_layouts.save_mask(tmp_path / "up" / "m.png", (3, 3, 9, 9))
    s3.upload(tmp_path / "up")
    table = {"path": [f"{s3.url}/a.png"], "mask": [f"{s3.url}/m.png"]}
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "m.parquet")
    (sample,) = list_samples(parse_dataset({"kind": "manifest", "root": str(tmp_path / "m.parquet")}), s3.storage)
    *_, region, kind = seen(sample, s3.storage)
    assert kind == "segmentation"
    assert region.any()


def test_a_worker_reads_them_side_by_side_and_in_order(tmp_path: Path, s3: S3) -> None:
    root = dataset_layouts.cub(tmp_path / "up")
    s3.upload(root)
    config = configuration(dataset={"kind": "cub", "root": s3.url}, storage=s3.storage)
    samples = list_samples(config.dataset, config.storage)
    samples.insert(3, replace(samples[0], image_id="lost", path=f"{s3.url}/images/nowhere.jpg"))
    items = [item for batch in read_batches(samples, config.storage, PREPROCESS, 5, timeout=10) for item in batch.items]
    assert [item.row for item in items] == list(range(13))
    assert [item.row for item in items if not isinstance(item, LoadedSample)] == [3]
    for sample, item in zip(samples, items, strict=True):
        if isinstance(item, LoadedSample):
            assert item.image_facts["sha256"] == read_image(sample, s3.storage).sha256


def test_what_is_not_there_is_said_in_one_line(s3: S3) -> None:
    for kind in ("folder", "cub", "palm"):
        message = refused(lambda kind=kind: list_samples(parse_dataset({"kind": kind, "root": f"{s3.url}/nowhere"}), s3.storage))
        assert message.startswith(f"{s3.url}/nowhere: no such folder; set dataset.root to ")
    message = refused(lambda: list_samples(parse_dataset({"kind": "manifest", "root": f"{s3.url}/no.csv"}), s3.storage))
    assert message.startswith(f"{s3.url}/no.csv: cannot be read as CSV or Parquet")
    with pytest.raises(UnreadableError, match="cannot read s3://"):
        read_image(Sample("a", f"{s3.url}/nowhere.png"), s3.storage)


def test_a_wrong_secret_is_one_line_without_the_secret(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    save_picture(tmp_path / "a.png")
    s3.upload(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    message = refused(lambda: list_samples(parse_dataset({"kind": "folder", "root": s3.url}), {**s3.storage, "skip_instance_cache": True}))
    assert message.startswith(f"{s3.url}: ")
    assert "a-wrong-secret" not in message
