"""iChallenge-PM: labels from names and from the table, lesions in black ink, and broken layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest

from hdm_core import Preprocess
from pipeline.datasets import Sample, list_samples
from pipeline.datasets.images import UnreadableError, read_image, read_region
from pipeline.datasets.palm import PalmConfig
from tests.support.dataset_layouts import HEIGHT, boxed, palm, save_mask
from tests.support.plans import refused, save_picture

PREPROCESS = Preprocess(resize=HEIGHT, crop=HEIGHT)
TABLE = "PALM-Validation-GT/PM_Label_and_Fovea_Location"


def fundi(root: Path | str, **keys: Any) -> dict[str, Sample]:
    return {sample.image_id: sample for sample in list_samples(PalmConfig(kind="palm", root=str(root), **keys), {})}


def region(sample: Sample) -> tuple[np.ndarray, str]:
    inside, kind = read_region(sample, read_image(sample, {}, PREPROCESS), PREPROCESS, {})
    return inside.numpy(), kind


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return palm(tmp_path / "palm")


def test_training_labels_are_in_the_names_and_validation_labels_in_the_workbook(root: Path) -> None:
    samples = fundi(root)
    assert {name: sample.label for name, sample in samples.items()} == {
        **{f"{letter}000{i}": int(letter == "P") for letter in "HNP" for i in (1, 2, 3)},
        "V0001": 1,
        "V0002": 0,
        "V0003": 1,
        "V0004": 0,
    }
    assert list(samples) == sorted(samples)
    assert {sample.class_name for sample in samples.values() if sample.label} == {"pathological myopia"}
    assert {sample.class_name for sample in samples.values() if not sample.label} == {"no pathological myopia"}
    assert set(fundi(root, split="validation")) == {"V0001", "V0002", "V0003", "V0004"}
    assert {name[0] for name in fundi(root, split="train")} == {"P", "H", "N"}


@pytest.mark.parametrize("name", [f"{TABLE}.csv", "PALM-Validation-GT/labels.csv"])
def test_the_table_may_be_saved_as_csv(root: Path, name: str) -> None:
    expected = fundi(root)
    (root / f"{TABLE}.xlsx").unlink()
    (root / name).write_text(
        "\ufeffID,imgName,Label,Fovea_X,Fovea_Y\r\n" + "".join(f"{i},V{i:04d}.jpg,{i % 2},1,2\r\n" for i in range(1, 5))
    )
    assert fundi(root) == expected


def test_without_the_table_validation_has_no_labels(root: Path) -> None:
    (root / f"{TABLE}.xlsx").unlink()
    assert {(sample.label, sample.class_name) for sample in fundi(root, split="validation").values()} == {(None, None)}


def test_the_region_is_the_union_of_the_lesions_which_are_black_on_white(root: Path) -> None:
    samples = fundi(root)
    expected = {
        "P0001": boxed((2, 2, 8, 9), (12, 10, 20, 18)),
        "H0003": boxed((5, 5, 9, 9)),
        "V0003": boxed((3, 3, 6, 6)),
    }
    for name, sample in samples.items():
        inside, kind = region(sample)
        assert kind == ("segmentation" if name in expected else "none")
        np.testing.assert_array_equal(inside, expected.get(name, boxed())[:, 2:22])


def test_one_lesion_may_be_chosen(root: Path) -> None:
    inside, _ = region(fundi(root, lesions=("Detachment",))["P0001"])
    np.testing.assert_array_equal(inside, boxed((12, 10, 20, 18))[:, 2:22])
    assert region(fundi(root, lesions=("Detachment",))["H0003"])[1] == "none"


def test_a_mask_that_is_white_throughout_is_no_region(root: Path) -> None:
    sample = fundi(root)["H0003"]
    assert sample.masks is not None
    save_mask(Path(sample.masks.paths[0]), None, paper=255)
    inside, kind = region(sample)
    assert kind == "none"
    assert not inside.any()


def test_a_mask_of_another_size_is_unreadable(root: Path) -> None:
    sample = fundi(root)["H0003"]
    assert sample.masks is not None
    save_picture(Path(sample.masks.paths[0]), 7, 5)
    with pytest.raises(UnreadableError, match=r"H0003\.bmp is 7 x 5, the image 24 x 20"):
        region(sample)


@pytest.mark.parametrize("below", ["", "PALM-Training400", "PALM-Training400/PALM-Training400"])
def test_the_root_may_be_the_folder_of_an_archive(root: Path, below: str) -> None:
    assert set(fundi(root / below)) >= {"P0001", "H0001", "N0001"}
    assert {name: sample.label for name, sample in fundi(root / below, split="train").items()} == {
        name: sample.label for name, sample in fundi(root, split="train").items()
    }


def test_two_hundred_are_drawn_with_the_seed(root: Path) -> None:
    drawn = [tuple(fundi(root, limit=5, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 5


def test_a_folder_without_the_layout_is_refused(tmp_path: Path) -> None:
    save_picture(tmp_path / "elsewhere" / "P0001.jpg")
    message = refused(lambda: fundi(tmp_path))
    assert message.startswith(f"{tmp_path}: no photographs in a folder PALM-Training400 or PALM-Validation400")
    assert "dataset.root" in message


def test_a_photograph_that_is_there_twice_is_refused(root: Path) -> None:
    save_picture(root / "PALM-Training400" / "P0001.jpg")
    assert "there is another P0001 in PALM-Training400" in refused(lambda: fundi(root))


def test_a_validation_photograph_that_the_table_lacks_is_refused(root: Path) -> None:
    save_picture(root / "PALM-Validation400" / "V0005.jpg")
    assert refused(lambda: fundi(root)).startswith(f"{root}/{TABLE}.xlsx: no row for V0005")


def test_a_table_that_is_none_is_refused(root: Path) -> None:
    (root / f"{TABLE}.xlsx").write_bytes(b"no workbook")
    assert refused(lambda: fundi(root)).startswith(f"{root}/{TABLE}.xlsx: cannot be read as a table")


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        (["imgName", "Class"], ["V0001.jpg", 1], "no column 'Label'; its columns are imgName, Class"),
        (["imgName", "Label"], ["V0001.jpg", 2], "V0001.jpg has the label '2'; it must be 0 or 1"),
        (["imgName", "Label"], ["V0001.jpg", None], "row 1: Label is empty"),
    ],
    ids=["column", "label", "empty"],
)
def test_a_bad_row_or_header_of_the_table_is_refused(root: Path, header: list[str], row: list[Any], words: str) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for line in (header, row):
        book.active.append(line)
    book.save(root / f"{TABLE}.xlsx")
    assert words in refused(lambda: fundi(root))
