"""CUB-200-2011: its official files, its two kinds of ground truth, and the errors of a broken layout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hdm_core import Preprocess
from pipeline.datasets import Masks, Sample, list_samples
from pipeline.datasets.cub import CubConfig
from pipeline.datasets.images import UnreadableError, read_image, read_mask, read_region
from tests.support.dataset_layouts import BIRDS, HEIGHT, WIDTH, boxed, cub
from tests.support.plans import refused, save_picture

PREPROCESS = Preprocess(resize=HEIGHT, crop=HEIGHT)  # the crop has the columns 2 to 21
BOX = boxed((4, 3, 14, 15))[:, 2:22]


def birds(root: Path | str, **keys: Any) -> list[Sample]:
    return list_samples(CubConfig(kind="cub", root=str(root), **keys), {})


def region(sample: Sample) -> tuple[torch.Tensor, str]:
    return read_region(sample, read_image(sample, {}, PREPROCESS), PREPROCESS, {})


def change(root: Path, table: str, old: str, new: str) -> str:
    """Replace or remove a line of a table; return the message with which the dataset is refused."""
    lines = (root / table).read_text().splitlines()
    lines[lines.index(old) : lines.index(old) + 1] = [new] if new else []
    (root / table).write_text("\n".join(lines))
    return refused(lambda: birds(root))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return cub(tmp_path / "CUB_200_2011")


def test_the_birds_have_their_class_split_and_box_in_the_order_of_the_images(root: Path) -> None:
    samples = birds(root)
    assert samples[0] == Sample(
        "001.Albatross/Bird_0000_1000.jpg",
        f"{root}/images/001.Albatross/Bird_0000_1000.jpg",
        label=0,
        class_name="001.Albatross",
        split="train",
        bbox=(4.0, 3.0, 14.0, 15.0),
        root=str(root),
    )
    assert [(sample.label, sample.class_name) for sample in samples] == [(i // 4, BIRDS[i // 4]) for i in range(12)]
    assert [sample.split for sample in samples] == ["train", "test"] * 6
    assert [sample.image_id for sample in birds(root, split="test")] == [sample.image_id for sample in samples[1::2]]


def test_the_order_is_that_of_images_txt_and_not_of_the_numbers_elsewhere(root: Path) -> None:
    expected = birds(root)
    for table in ("image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt", "classes.txt"):
        lines = (root / table).read_text().splitlines()
        (root / table).write_text("\r\n".join(reversed(lines)) + "\r\n\r\n")
    assert birds(root) == expected


def test_without_segmentations_the_region_is_the_box(root: Path) -> None:
    for sample in birds(root):
        inside, kind = region(sample)
        assert kind == "bbox"
        np.testing.assert_array_equal(inside.numpy(), BOX)


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_with_segmentations_it_is_these_and_the_record_says_so(tmp_path: Path, where: str) -> None:
    root = tmp_path / "CUB_200_2011"
    folder = (root if where == "inside" else tmp_path) / "segmentations"
    for sample in birds(cub(root, folder)):
        assert sample.masks == Masks((f"{folder}/{sample.image_id[:-4]}.png",), root=str(folder))
        inside, kind = region(sample)
        assert kind == "segmentation"
        np.testing.assert_array_equal(inside.numpy(), BOX)


def test_an_image_that_was_not_segmented_has_its_box(tmp_path: Path) -> None:
    root = cub(tmp_path / "CUB_200_2011", tmp_path / "segmentations")
    (tmp_path / "segmentations" / "001.Albatross" / "Bird_0000_1000.png").unlink()
    assert [region(sample)[1] for sample in birds(root)] == ["bbox"] + ["segmentation"] * 11


def test_what_half_of_the_annotators_marked_is_inside(tmp_path: Path) -> None:
    """Use the grey levels 0, 51, ..., 255 of five annotators: three of them are more than half."""
    root = cub(tmp_path / "CUB_200_2011", tmp_path / "segmentations")
    (sample, *_) = birds(root)
    assert sample.masks is not None
    levels = np.tile(np.repeat([0, 51, 102, 153, 204, 255], 4).astype(np.uint8), (HEIGHT, 1))
    Image.fromarray(levels).save(sample.masks.paths[0])
    mask = read_mask(sample, (WIDTH, HEIGHT), {})
    assert mask is not None
    np.testing.assert_array_equal(np.asarray(mask), np.tile(np.repeat([False] * 3 + [True] * 3, 4), (HEIGHT, 1)))


def test_the_papers_draw_is_so_many_test_images_of_every_class(root: Path) -> None:
    assert Counter(sample.class_name for sample in birds(root, split="test", per_class=2)) == dict.fromkeys(BIRDS, 2)
    one = [birds(root, split="test", per_class=1, seed=seed) for seed in range(6)]
    assert all(Counter(sample.class_name for sample in drawn) == dict.fromkeys(BIRDS, 1) for drawn in one)
    assert len({tuple(drawn) for drawn in one}) > 1


def test_a_class_with_fewer_images_than_are_to_be_drawn_is_refused(root: Path) -> None:
    message = refused(lambda: birds(root, split="test", per_class=10))
    assert message == "dataset.per_class 10: there are only 2 images of the class 001.Albatross; draw at most 2 of each"


@pytest.mark.parametrize("table", ["images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"])
def test_a_file_that_is_missing_is_named(root: Path, table: str) -> None:
    (root / table).unlink()
    assert refused(lambda: birds(root)).startswith(f"{root}/{table}: cannot be read")


def test_a_folder_that_holds_the_dataset_is_not_the_dataset(root: Path) -> None:
    assert f"{root.parent}/images.txt: cannot be read" in refused(lambda: birds(root.parent))


@pytest.mark.parametrize(
    ("table", "old", "new", "words"),
    [
        ("image_class_labels.txt", "3 1", "", "image_class_labels.txt: no line for image 3 of images.txt"),
        ("train_test_split.txt", "3 1", "", "train_test_split.txt: no line for image 3 of images.txt"),
        ("bounding_boxes.txt", "3 4.0 3.0 10.0 12.0", "", "bounding_boxes.txt: no line for image 3 of images.txt"),
        ("images.txt", "3 001.Albatross/Bird_0002_1002.jpg", "", "a line for image 3, which images.txt does not have"),
        ("image_class_labels.txt", "3 1", "2 1", "image_class_labels.txt: the number 2 has two lines"),
        ("images.txt", "3 001.Albatross/Bird_0002_1002.jpg", "2 x.jpg", "images.txt: the number 2 has two lines"),
        ("images.txt", "2 001.Albatross/Bird_0001_1001.jpg", "2 001.Albatross/Bird_0000_1000.jpg", "two images have the id"),
        ("image_class_labels.txt", "3 1", "3 9", "image 3 has the class '9', which classes.txt does not have"),
        ("train_test_split.txt", "3 1", "3 2", "image 3 has '2'; write 1 for training, 0 for test"),
        ("bounding_boxes.txt", "3 4.0 3.0 10.0 12.0", "3 4.0 3.0 10.0", "image 3 has the box '4.0 3.0 10.0'"),
        ("bounding_boxes.txt", "3 4.0 3.0 10.0 12.0", "3 4.0 3.0 0.0 12.0", "image 3 has the box"),
        ("bounding_boxes.txt", "3 4.0 3.0 10.0 12.0", "3 4.0 3.0 nan 12.0", "image 3 has the box"),
        ("images.txt", "3 001.Albatross/Bird_0002_1002.jpg", "3", "images.txt, line 3: 2 columns are expected, not '3'"),
        (
            "images.txt",
            "3 001.Albatross/Bird_0002_1002.jpg",
            "3 ../../../etc/passwd",
            "../etc/passwd: leaves the dataset's root",
        ),
        ("images.txt", "3 001.Albatross/Bird_0002_1002.jpg", "3 /etc/passwd", "/etc/passwd: leaves the dataset's root"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(root: Path, table: str, old: str, new: str, words: str) -> None:
    assert words in change(root, table, old, new)


def test_an_image_that_is_missing_is_a_row_that_is_unreadable(root: Path) -> None:
    (sample, *_) = birds(root)
    Path(sample.path).unlink()
    (again, *_) = birds(root)
    with pytest.raises(UnreadableError, match="No such file"):
        read_image(again, {})


@pytest.mark.parametrize("target", ["outside", "sibling"])
def test_a_link_out_of_the_dataset_is_unreadable_also_with_segmentations_beside_it(tmp_path: Path, target: str) -> None:
    root = cub(tmp_path / "CUB_200_2011", tmp_path / "segmentations")
    secret = save_picture(tmp_path / "secret.png" if target == "outside" else tmp_path / "CUB_200_2011x" / "secret.png", WIDTH, HEIGHT)
    (sample, other, *_) = birds(root)
    assert other.masks is not None
    for path in (sample.path, other.masks.paths[0]):
        Path(path).unlink()
        Path(path).symlink_to(secret)
    for broken in (sample, other):
        with pytest.raises(UnreadableError, match="leads out of the dataset's root"):
            region(broken)
