"""IDRiD: both parts, in the official layout and the plain one, and the errors of labels and photographs that do not match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdm_core import Preprocess
from pipeline.datasets import Sample, list_samples
from pipeline.datasets.idrid import IdridConfig
from pipeline.datasets.images import read_image, read_region
from tests.support.dataset_layouts import GRADES, HEIGHT, boxed, idrid, plain_idrid
from tests.support.plans import refused, save_picture

PREPROCESS = Preprocess(resize=HEIGHT, crop=HEIGHT)
MA, EX, OD = (8, 4, 12, 8), (10, 6, 15, 12), (3, 14, 8, 18)
LABELS = "B. Disease Grading/2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv"


def fundi(root: Path | str, part: str, **keys: Any) -> dict[str, Sample]:
    config = IdridConfig.model_validate({"kind": "idrid", "root": str(root), "part": part, **keys})
    return {sample.image_id: sample for sample in list_samples(config, {})}


def region(sample: Sample) -> tuple[np.ndarray, str]:
    inside, kind = read_region(sample, read_image(sample, {}, PREPROCESS), PREPROCESS, {})
    return inside.numpy(), kind


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return idrid(tmp_path / "IDRiD")


def test_the_label_is_the_grade(root: Path) -> None:
    samples = fundi(root, "grading")
    names = ["no retinopathy", "mild", "moderate", "severe", "proliferative"]
    assert [(name, sample.label, sample.split) for name, sample in samples.items()] == [
        ("test/IDRiD_001", 0, "test"),
        ("test/IDRiD_002", 4, "test"),
        *[(f"train/IDRiD_00{i}", grade, "train") for i, grade in enumerate(GRADES, start=1)],
    ]
    assert all(sample.class_name == names[sample.label or 0] for sample in samples.values())
    assert {region(sample)[1] for sample in samples.values()} == {"none"}


def test_referable_is_grade_two_and_more(root: Path) -> None:
    samples = fundi(root, "grading", referable=True, split="train")
    assert [sample.label for sample in samples.values()] == [int(grade >= 2) for grade in GRADES]
    assert {sample.label: sample.class_name for sample in samples.values()} == {0: "not referable", 1: "referable"}


@pytest.mark.parametrize(
    ("lesions", "boxes"),
    [(None, (MA, EX)), (["EX"], (EX,)), (["MA", "OD"], (MA, OD)), (["OD"], (OD,))],
    ids=["default", "EX", "MA OD", "OD"],
)
@pytest.mark.parametrize("layout", [idrid, plain_idrid])
def test_the_region_is_the_union_of_the_chosen_lesions(tmp_path: Path, layout: Any, lesions: Any, boxes: Any) -> None:
    samples = fundi(layout(tmp_path / "IDRiD"), "segmentation", lesions=lesions, split="train")
    assert list(samples) == [f"train/IDRiD_0{i}" for i in range(1, 7)]
    for sample in samples.values():
        assert (sample.label, sample.class_name) == (None, None)
        inside, kind = region(sample)
        assert kind == "segmentation"
        np.testing.assert_array_equal(inside, boxed(*boxes)[:, 2:22])


def test_a_photograph_without_a_file_of_the_lesion_has_no_region(root: Path) -> None:
    assert {region(sample)[1] for sample in fundi(root, "segmentation", lesions=["SE", "HE"]).values()} == {"none"}


def test_the_plain_layout_is_the_training_split(tmp_path: Path) -> None:
    plain = fundi(plain_idrid(tmp_path / "plain"), "grading")
    official = fundi(tmp_path / "official", "grading", split="train")
    assert {name: (s.label, s.class_name, s.split) for name, s in plain.items()} == {
        name: (s.label, s.class_name, s.split) for name, s in official.items()
    }


@pytest.mark.parametrize("part", ["grading", "segmentation"])
def test_a_folder_named_as_a_part_above_the_dataset_is_none(tmp_path: Path, part: str) -> None:
    root = idrid(tmp_path / "grading" / "segmentation" / "images" / "IDRiD")
    assert len(fundi(root, part)) == (8 if part == "grading" else 7)


@pytest.mark.parametrize("part", ["grading", "segmentation"])
def test_a_part_that_is_missing_is_refused(tmp_path: Path, part: str) -> None:
    save_picture(tmp_path / "images" / "IDRiD_001.jpg")
    message = refused(lambda: fundi(tmp_path, part))
    assert message == f"{tmp_path}: no photographs of the part {part}; set dataset.root to the folder of IDRiD"


def test_a_label_without_a_photograph_and_a_photograph_without_a_label_are_refused(root: Path) -> None:
    folder = root / "B. Disease Grading" / "1. Original Images" / "a. Training Set"
    (folder / "IDRiD_003.jpg").unlink()
    assert f"{root}: train/IDRiD_003 has a label and no photograph" in refused(lambda: fundi(root, "grading"))
    (root / LABELS).write_text("Image name,Retinopathy grade\nIDRiD_001,1\n")
    assert f"{root}: train/IDRiD_002 has a photograph and no label" in refused(lambda: fundi(root, "grading"))
    (root / LABELS).unlink()
    assert "has a photograph and no label" in refused(lambda: fundi(root, "grading"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Image,Retinopathy grade\nIDRiD_001,1\n", "no column 'Image name'"),
        ("Image name,Retinopathy grade\nIDRiD_001,5\n", "IDRiD_001 has the grade '5'; it must be 0 to 4"),
        ("Image name,Retinopathy grade\nIDRiD_001,\n", "row 1: Retinopathy grade is empty"),
        ("Image name,Retinopathy grade\nIDRiD_001,1\nIDRiD_001,2\n", "IDRiD_001 has two rows"),
        ("", "no column 'Image name'"),
    ],
    ids=["column", "grade", "empty", "twice", "nothing"],
)
def test_a_table_that_is_wrong_is_refused(root: Path, text: str, words: str) -> None:
    (root / LABELS).write_text(text)
    message = refused(lambda: fundi(root, "grading"))
    assert message.startswith(f"{root}/{LABELS}")
    assert words in message
