"""Folders, manifests, the demo, and the random selection of images."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets import Sample, list_samples
from pipeline.datasets.demo import DemoConfig
from pipeline.datasets.folder import FolderConfig
from pipeline.datasets.images import UnreadableError, read_image
from pipeline.datasets.sample import below, is_image, number_classes, select
from tests.support.plans import refused, save_picture

STRANGE = [
    "it's.png",
    '"hi".png',
    "two words.png",
    "señor 猫.PNG",
    "two\nlines.png",
    "a::b.png",
    "5%.png",
    "[1].png",
    "a#b?.png",
    "*.png",
]


def folder(root: Path | str, **keys: Any) -> list[Sample]:
    return list_samples(FolderConfig(kind="folder", root=str(root), **keys), {})


def ids(samples: list[Sample]) -> list[str]:
    return [sample.image_id for sample in samples]


# A folder


def test_a_folder_of_classes_is_numbered_by_its_subfolders_in_sorted_order(tmp_path: Path) -> None:
    for name in ("cat/2.png", "ant/9.jpg", "cat/10.png", "bee/deep/er/1.png"):
        save_picture(tmp_path / name)
    samples = folder(tmp_path)
    assert [(sample.image_id, sample.label, sample.class_name) for sample in samples] == [
        ("ant/9.jpg", 0, "ant"),
        ("bee/deep/er/1.png", 1, "bee"),
        ("cat/10.png", 2, "cat"),
        ("cat/2.png", 2, "cat"),
    ]
    assert [sample.path for sample in samples] == [str(tmp_path / sample.image_id) for sample in samples]


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        save_picture(tmp_path / name)
    assert [(sample.image_id, sample.label, sample.class_name) for sample in folder(tmp_path)] == [
        ("a.png", None, None),
        ("b.png", None, None),
    ]


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{kind}/{i}.png" for kind in "ab" for i in range(6)]
    for name in random.Random(3).sample(names, len(names)):
        save_picture(tmp_path / name)
    expected = folder(tmp_path)
    assert ids(expected) == sorted(names)
    scandir = os.scandir

    @contextmanager
    def reversed_scandir(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", reversed_scandir)
    assert folder(tmp_path) == expected


def test_hidden_files_and_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/._1.png", "a/.hidden.png", ".git/2.png", "a/.cache/3.png"):
        save_picture(tmp_path / name)
    for name in ("a/readme.txt", "a/1.png.bak", "a/png", "Thumbs.db"):
        (tmp_path / name).write_text("text")
    (tmp_path / "folder.png").mkdir()
    assert [(sample.image_id, sample.class_name) for sample in folder(tmp_path)] == [("a/1.png", "a")]


def test_a_root_in_a_hidden_folder_is_no_hidden_root(tmp_path: Path) -> None:
    save_picture(tmp_path / ".data" / "a.png")
    assert ids(folder(tmp_path / ".data")) == ["a.png"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("parent", ["", "a class's/"])
def test_a_strange_name_is_a_name(tmp_path: Path, name: str, parent: str) -> None:
    save_picture(tmp_path / parent / name)
    (sample,) = folder(tmp_path)
    assert sample.image_id == parent + name
    assert sample.class_name == (parent[:-1] or None)
    assert read_image(sample, {}).image.size == (24, 20)


def test_however_a_root_is_written_the_samples_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_picture(tmp_path / "data" / "a.png")
    monkeypatch.chdir(tmp_path)
    expected = folder(tmp_path / "data")
    for root in ("data", "data/", "./data", f"{tmp_path}/data/", f"file://{tmp_path}/data"):
        assert [sample.path for sample in folder(root)] == [str(tmp_path / "data/a.png")], root
        assert ids(folder(root)) == ids(expected)
        assert folder(root)[0].root is not None


def test_a_link_that_leaves_the_root_is_unreadable_and_one_that_stays_is_read(tmp_path: Path) -> None:
    secret = save_picture(tmp_path / "secret.png")
    root = tmp_path / "root"
    save_picture(root / "a.png")
    (root / "inside.png").symlink_to("a.png")
    (root / "outside.png").symlink_to(secret)
    (root / "up.png").symlink_to("../secret.png")
    (root / "dead.png").symlink_to("nowhere.png")
    (root / "loop.png").symlink_to("loop.png")
    samples = {sample.image_id: sample for sample in folder(root)}
    assert set(samples) == {"a.png", "inside.png", "outside.png", "up.png", "dead.png", "loop.png"}
    assert read_image(samples["inside.png"], {}) is not None
    for name in ("outside.png", "up.png"):
        with pytest.raises(UnreadableError, match="leads out of the dataset's root"):
            read_image(samples[name], {})
    for name in ("dead.png", "loop.png"):
        with pytest.raises(UnreadableError, match="cannot read"):
            read_image(samples[name], {})


def test_a_root_that_is_a_link_itself_is_a_root(tmp_path: Path) -> None:
    save_picture(tmp_path / "data" / "a.png")
    (tmp_path / "link").symlink_to("data")
    (sample,) = folder(tmp_path / "link")
    assert read_image(sample, {}).image.size == (24, 20)


def test_a_folder_in_an_object_store_is_read_the_same_way(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/test_datasets/cat/a b.png", save_picture(tmp_path / "x.png").read_bytes())
    try:
        (sample,) = folder("memory://test_datasets")
        assert (sample.image_id, sample.class_name, sample.path) == ("cat/a b.png", "cat", "memory:///test_datasets/cat/a b.png")
        assert read_image(sample, {}).image.size == (24, 20)
    finally:
        memory.rm("/test_datasets", recursive=True)


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.png").touch()
    for root in (tmp_path / "nowhere", tmp_path / "file.png"):
        assert refused(lambda root=root: folder(root)) == f"{root}: no such folder; set dataset.root to a folder of images"


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    left_out = "files and folders left out: 1 with a suffix of no image (.txt)"
    assert refused(lambda: folder(tmp_path)) == f"{tmp_path}: no images; {left_out}; look at dataset.root, dataset.kind and dataset.split"


def test_a_protocol_that_nobody_knows_is_refused() -> None:
    assert "nosuch://data: cannot be listed" in refused(lambda: folder("nosuch://data"))


def test_a_folder_that_may_not_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "scandir", scandir)
    message = refused(lambda: folder(tmp_path))
    assert "cannot be listed" in message
    assert "Permission denied" in message


@pytest.mark.parametrize(("parent", "what"), [("", "images without a label"), ("cat/", "images of the class cat")])
def test_a_class_with_fewer_images_than_are_to_be_drawn_is_refused(tmp_path: Path, parent: str, what: str) -> None:
    for i in range(9):
        save_picture(tmp_path / f"{parent}{i}.png")
    assert len(folder(tmp_path, per_class=9)) == 9
    message = refused(lambda: folder(tmp_path, per_class=10))
    assert message == f"dataset.per_class 10: there are only 9 {what}; draw at most 9 of each"


# The demo


def test_the_demo_is_six_photographs_with_boxes_that_lie_in_them() -> None:
    samples = list_samples(DemoConfig(kind="demo"), {})
    assert len(samples) == 6
    assert len({sample.class_name for sample in samples}) == 6
    for sample in samples:
        with Image.open(sample.path) as image:
            width, height = image.size
        assert sample.bbox is not None
        left, top, right, bottom = sample.bbox
        assert 0 <= left < right <= width, sample.image_id
        assert 0 <= top < bottom <= height, sample.image_id


# Paths and classes


@pytest.mark.parametrize("path", ["../a.png", "a/../../b.png", "/etc/a.png", ".."])
def test_a_path_that_leaves_its_root_is_refused(path: str) -> None:
    message = refused(lambda: below("/data", path))
    assert f"{path}: leaves the dataset's root /data" in message


def test_names_say_what_is_an_image() -> None:
    assert all(is_image(name) for name in ("a.jpg", "A.JPEG", "b/c.tif", "a.b.webp", "a..png"))
    assert not any(is_image(name) for name in ("a.txt", "jpg", ".jpg", "a/.b.jpg", ".a/b.jpg", "a.jpg/readme"))


def test_classes_are_numbered_in_sorted_order() -> None:
    samples = [Sample("1", "1", class_name="b"), Sample("2", "2", class_name="a"), Sample("3", "3"), Sample("4", "4", class_name="a")]
    assert [sample.label for sample in number_classes(samples)] == [1, 0, None, 0]


def test_no_number_is_made_up_beside_those_of_the_dataset() -> None:
    samples = [Sample("1", "1", 0, "b"), Sample("2", "2", class_name="a")]
    assert number_classes(samples) == samples


# Drawing

_labels = st.lists(st.sampled_from([0, 1, 2, None]), max_size=30)
_count = st.none() | st.integers(1, 12)


def numbered(labels: list[int | None]) -> list[Sample]:
    return [Sample(str(i), str(i), label) for i, label in enumerate(labels)]


@given(_labels, _count, _count, st.integers(0, 5))
def test_what_is_drawn_is_a_part_in_the_datasets_order_and_always_the_same(
    labels: list[int | None], per_class: int | None, limit: int | None, seed: int
) -> None:
    samples = numbered(labels)
    drawn = select(samples, per_class, limit, seed)
    assert drawn == [sample for sample in samples if sample in drawn]
    assert drawn == select(list(samples), per_class, limit, seed)
    counts = Counter(sample.label for sample in samples)
    most = {label: min(count, per_class or count) for label, count in counts.items()}
    assert len(drawn) == min(limit or len(samples), sum(most.values()))
    for label, count in Counter(sample.label for sample in drawn).items():
        assert count == most[label] if limit is None else count <= most[label]


@given(_labels, st.integers(1, 12), st.integers(0, 5))
def test_a_limit_draws_from_what_per_class_drew(labels: list[int | None], count: int, seed: int) -> None:
    samples = numbered(labels)
    assert set(ids(select(samples, count, 3, seed))) <= set(ids(select(samples, count, None, seed)))


def test_without_bounds_everything_is_drawn_and_the_seed_means_nothing() -> None:
    samples = numbered([0, 1, 0, None])
    assert select(samples, None, None, 0) == select(samples, None, None, 9) == samples
    assert select(samples, 9, 9, 4) == samples


def test_another_seed_draws_others() -> None:
    samples = numbered([i % 3 for i in range(60)])
    assert len({tuple(ids(select(samples, 4, None, seed))) for seed in range(8)}) == 8
    assert len({tuple(ids(select(samples, None, 10, seed))) for seed in range(8)}) == 8


def test_the_draw_is_the_one_that_was_published() -> None:
    """Pin the selection: later versions must draw the same images, unless the schema version changes."""
    samples = numbered([i % 2 for i in range(10)])
    assert ids(select(samples, 2, None, 0)) == PUBLISHED[0]
    assert ids(select(samples, None, 3, 1)) == PUBLISHED[1]


PUBLISHED = (["1", "5", "6", "8"], ["1", "2", "4"])
