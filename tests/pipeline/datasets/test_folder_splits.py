"""Folders named like splits, and tables of splits."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from tests.support.listings import classes, line, listed, save
from tests.support.plans import refused

# Splits


@pytest.mark.parametrize("names", [("train", "val"), ("train", "valid", "test"), ("Train", "validation", "TEST"), ("train",)])
def test_folders_named_like_splits_are_splits_and_their_subfolders_the_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = save(tmp_path, *(f"{name}/{kind}/{i}.png" for name in names for kind in ("ant", "bee") for i in range(2)))
    samples = listed(root)
    assert samples.notes.lines() == []
    assert {sample.split for sample in samples} == set(names)
    assert {(sample.label, sample.class_name) for sample in samples} == {(0, "ant"), (1, "bee")}
    for name in names:
        chosen = listed(root, split=name)
        assert {sample.image_id.split("/")[0] for sample in chosen} == {name}
        assert {(sample.label, sample.class_name) for sample in chosen} == {(0, "ant"), (1, "bee")}, "numbers do not depend on the split"


def test_a_class_that_only_one_split_has_changes_no_number_of_another(tmp_path: Path) -> None:
    root = save(tmp_path, "train/ant/1.png", "train/bee/2.png", "train/cat/3.png", "test/cat/4.png")
    assert [sample.label for sample in listed(root, split="test")] == [2]


def test_other_files_and_folders_without_images_beside_splits_change_nothing(tmp_path: Path) -> None:
    root = save(tmp_path, "train/ant/deep/1.png", "test/ant/2.png")
    (root / "annotations").mkdir()
    (root / "annotations" / "ant.xml").touch()
    assert classes(listed(root)) == {"test/ant/2.png": ("test", "ant"), "train/ant/deep/1.png": ("train", "ant")}


def test_images_of_a_split_that_lie_in_no_class_have_none_and_are_a_remark(tmp_path: Path) -> None:
    root = save(tmp_path, "train/ant/1.png", "train/bee/2.png", "test/3.png", "test/4.png", "5.png")
    samples = listed(root)
    assert classes(samples)["test/3.png"] == ("test", None)
    assert samples.notes.remarks == [
        "images in the root itself, beside the folders, which have no class: 1",
        "images in the folder of the split test itself, which have no class: 2",
    ]


def test_splits_mixed_with_classes_stay_classes_with_a_remark(tmp_path: Path) -> None:
    samples = listed(save(tmp_path, "train/ant/1.png", "test/ant/2.png", "extra/3.png"))
    assert {sample.class_name for sample in samples} == {"train", "test", "extra"}
    assert "test, train are taken for classes although they are named like splits, because extra lie beside them" in line(samples)


def test_a_class_that_is_named_like_a_split_is_a_class(tmp_path: Path) -> None:
    samples = listed(save(tmp_path, "train/1.png", "bus/2.png", "plane/3.png"))
    assert {sample.class_name for sample in samples} == {"train", "bus", "plane"}
    assert samples.notes.lines() == []
    samples = listed(save(tmp_path / "only", "train/1.png", "test/2.png"))
    assert {sample.class_name for sample in samples} == {"train", "test"}
    assert "named like splits, but have no subfolders of classes: they are taken for classes" in line(samples)


def test_folders_that_all_hold_the_same_folders_are_a_remark(tmp_path: Path) -> None:
    samples = listed(save(tmp_path, *(f"{part}/{kind}/1.png" for part in ("Training", "Testing") for kind in ("glioma", "healthy"))))
    assert {sample.class_name for sample in samples} == {"Training", "Testing"}
    assert "its class (Testing, Training), and each of these holds the folders glioma, healthy" in line(samples)
    samples = listed(save(tmp_path / "one", *(f"dataset/{kind}/1.png" for kind in ("cat", "dog"))))
    assert "each of these holds the folders cat, dog" in line(samples)


def test_a_split_that_a_folder_does_not_have_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    root = save(tmp_path, "train/ant/1.png", "val/ant/2.png")
    message = refused(lambda: listed(root, split="validation"))
    assert message == f"{root}: no images in the split 'validation'; the dataset has train, val; look at dataset.split"
    message = refused(lambda: listed(save(tmp_path / "flat", "ant/1.png"), split="test"))
    assert message.endswith("no images in the split 'test'; the dataset has no splits; look at dataset.split")


def test_a_class_in_composed_and_decomposed_letters_is_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    samples = listed(save(tmp_path, f"train/{composed}/1.png", f"test/{decomposed}/2.png"))
    assert {(sample.label, sample.class_name) for sample in samples} == {(0, composed)}
    assert {sample.image_id for sample in samples} == {f"train/{composed}/1.png", f"test/{decomposed}/2.png"}


def test_two_files_whose_ids_would_be_the_same_are_refused(tmp_path: Path) -> None:
    save(tmp_path, os.fsdecode(b"a\xff.png"), "a\\udcff.png")
    assert "two images have the id" in refused(lambda: listed(tmp_path))


# Tables of splits


def test_images_that_a_table_of_splits_does_not_name_and_rows_of_no_image_are_counted(tmp_path: Path) -> None:
    save(tmp_path, "images/1.png", "images/2.png", "images/3.png")
    (tmp_path / "split.csv").write_text("image_id,split\n1.png,test\n9.png,test\n")
    samples = listed(tmp_path / "images", splits=str(tmp_path / "split.csv"), split="test")
    assert [sample.image_id for sample in samples] == ["1.png"]
    assert samples.notes.lines() == [
        "dataset: files and folders left out: 2 that dataset.splits does not name (2.png, 3.png)",
        f"dataset: rows of {tmp_path}/split.csv that name no image of the dataset: 1 (such as 9.png)",
    ]


def test_an_image_that_a_table_puts_into_two_splits_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "images/1.png")
    (tmp_path / "split.csv").write_text("image_id,split\n1.png,test\n1.png,train\n")
    message = refused(lambda: listed(tmp_path / "images", splits=str(tmp_path / "split.csv")))
    assert message.endswith("split.csv: 1.png is in the splits 'test' and 'train'; an image needs one")
