"""Listings: every file is a sample, or it is counted with the reason, or the dataset is refused by name."""

from __future__ import annotations

import io
import json
import logging
import os
import unicodedata
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import Listing, Sample, list_samples, parse_dataset
from pipeline.datasets.cub import CubConfig
from pipeline.datasets.folder import FolderConfig, read_folder
from pipeline.datasets.formats import FORMATS, has_image_suffix, image_suffixes
from pipeline.datasets.images import UnreadableError, read_image
from pipeline.datasets.listing import ListingNotes
from pipeline.plan import make_plan
from tests.support import dataset_layouts
from tests.support.plans import configuration, refused, save_picture


def listed(root: Path | str, **keys: Any) -> Listing:
    return list_samples(FolderConfig(kind="folder", root=str(root), **keys), {})


def classes(samples: list[Sample]) -> dict[str, tuple[str | None, str | None]]:
    return {sample.image_id: (sample.split, sample.class_name) for sample in samples}


def save(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        save_picture(root / name, seed=seed)
    return root


def line(samples: Listing) -> str:
    (only,) = samples.notes.lines()
    return only


# Formats


PICTURE = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3)))
SAVED_AS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), "JPEG2000"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".bmp": "BMP",
    ".dib": "DIB",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".mpo": "MPO",
}


@pytest.mark.parametrize("suffix", SAVED_AS)
def test_a_file_with_any_usual_suffix_of_a_format_is_listed_and_decoded(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    PICTURE.convert({".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")).save(buffer, SAVED_AS[suffix])
    for name in (f"x{suffix}", f"y{suffix.upper()}"):
        (tmp_path / name).write_bytes(buffer.getvalue())
    samples = listed(tmp_path)
    assert len(samples) == 2
    assert samples.notes.lines() == []
    for sample in samples:
        assert read_image(sample, {}).size == (64, 64)


def test_the_suffixes_are_those_that_pillow_registers_for_the_decoded_formats() -> None:
    known = {name: {suffix for suffix, each in Image.registered_extensions().items() if each == name} for name in (*FORMATS, "MPO")}
    assert all(known.values())
    assert image_suffixes() == set.union(*known.values())
    assert not any(has_image_suffix(f"a{suffix}") for suffix in (".eps", ".pdf", ".svg", ".dcm", ".npy", ".ico", ".txt", ""))


# What is left out


def test_files_of_other_types_are_counted_by_their_suffixes(tmp_path: Path) -> None:
    save(tmp_path, "a/1.png")
    for name in ("a/1.txt", "a/2.TXT", "b/3.txt", "a/x.npy", "a/IM0001", "b/1.png.bak", "b/scan.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    samples = listed(tmp_path)
    assert len(samples) == 1
    assert line(samples) == "dataset: files and folders left out: 7 with a suffix of no image (3 .txt, 1 .bak, 1 .dcm, ...)"
    assert samples.notes.left_out() == [
        {"reason": "with a suffix of no image", "count": 7, "examples": {".txt": 3, ".bak": 1, ".dcm": 1}},
    ]


def test_a_dataset_in_which_nothing_is_left_out_has_no_lines(tmp_path: Path) -> None:
    assert listed(save(tmp_path, "a/1.png", "a/deep/er/2.png", "b/3.png")).notes == ListingNotes()


@pytest.mark.parametrize("where", ["disk", "store"])
def test_hidden_files_and_folders_are_counted_once_each(tmp_path: Path, where: str) -> None:
    save(tmp_path, "a/1.png", "a/._1.png", ".git/2.png", ".git/deep/3.png", "a/.cache/4.png", "a/.cache/5.png")
    if where == "disk":
        samples = listed(tmp_path)
    else:
        memory = fsspec.filesystem("memory")
        memory.put(f"{tmp_path}/", "/test_listing", recursive=True)
        try:
            samples = listed("memory://test_listing")
        finally:
            memory.rm("/test_listing", recursive=True)
    assert [sample.image_id for sample in samples] == ["a/1.png"]
    assert line(samples) == "dataset: files and folders left out: 3 hidden (.git, a/._1.png, a/.cache)"


def test_a_dataset_without_images_is_refused_with_what_it_has(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / name).touch()
    assert "no images; files and folders left out: 2 with a suffix of no image (2 .dcm); look at dataset.root" in refused(
        lambda: listed(tmp_path)
    )


def test_a_folder_that_may_not_be_listed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a/1.png", "lost/2.png")
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if path.endswith("lost/"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert "1 in folders that cannot be listed (lost: [Errno 13] Permission denied)" in line(listed(tmp_path))


def test_a_plan_logs_what_is_left_out_and_has_it_in_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "a/1.png", "b/2.png", "3.png")
    (tmp_path / "notes.txt").touch()
    with caplog.at_level(logging.WARNING, "pipeline"):
        plan = make_plan(configuration(dataset={"kind": "folder", "root": str(tmp_path)}))
    assert caplog.messages == [
        "dataset: files and folders left out: 1 with a suffix of no image (.txt)",
        "dataset: images in the root itself, beside the folders, which have no class: 1",
    ]
    facts = json.loads(json.dumps(plan.as_dict()))
    assert facts["left_out"] == [{"reason": "with a suffix of no image", "count": 1, "examples": {".txt": 1}}]
    assert facts["remarks"] == ["images in the root itself, beside the folders, which have no class: 1"]


def test_names_that_no_terminal_should_show_are_escaped_in_the_lines(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    (tmp_path / ".\x1b[31mred").touch()
    (tmp_path / os.fsdecode(b".\xff")).touch()
    assert "2 hidden (" in line(listed(tmp_path))
    assert line(listed(tmp_path)).isprintable()
    assert line(listed(tmp_path)).encode()


# Links


def test_a_link_to_a_folder_inside_is_followed_and_images_listed_twice_are_a_remark(tmp_path: Path) -> None:
    save(tmp_path, "cat/1.jpg", "store/2.jpg", "store/deep/3.jpg")
    (tmp_path / "bird").symlink_to("store")
    samples = listed(tmp_path)
    assert set(classes(samples)) == {"bird/2.jpg", "bird/deep/3.jpg", "cat/1.jpg", "store/2.jpg", "store/deep/3.jpg"}
    assert {sample.class_name for sample in samples} == {"bird", "cat", "store"}
    assert line(samples) == ("dataset: images listed twice, once through a link to a folder of the dataset: 2 (bird -> store)")
    for sample in samples:
        assert read_image(sample, {}).size == (24, 20)


def test_a_link_to_a_hidden_folder_inside_is_followed_and_doubles_nothing(tmp_path: Path) -> None:
    save(tmp_path, ".store/one/1.jpg", "cat/2.jpg")
    (tmp_path / "dog").symlink_to(tmp_path / ".store" / "one")
    samples = listed(tmp_path)
    assert classes(samples) == {"cat/2.jpg": (None, "cat"), "dog/1.jpg": (None, "dog")}
    assert line(samples) == "dataset: files and folders left out: 1 hidden (.store)"


@pytest.mark.parametrize("link", ["dog", "animals/dog", "dog-2019"])
def test_a_link_to_a_folder_outside_is_refused_by_name(tmp_path: Path, link: str) -> None:
    root = save(tmp_path / "root", "cat/1.jpg")
    save(tmp_path / "elsewhere", "2.jpg")
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(tmp_path / "elsewhere")
    message = refused(lambda: listed(root))
    assert f"the folder {link} is a link to {tmp_path}/elsewhere, which leads out of the dataset's root" in message
    (root / "more").symlink_to("../elsewhere")
    assert "leads out of the dataset's root (2 such links in all)" in refused(lambda: listed(root))


def test_links_obey_the_rule_with_which_images_are_read(tmp_path: Path) -> None:
    """A link to a file outside has a row that is unreadable; one through a link to a folder outside would be, too."""
    root = save(tmp_path / "root", "cat/1.jpg")
    outside = save(tmp_path / "elsewhere", "2.jpg")
    (root / "cat" / "2.jpg").symlink_to(outside / "2.jpg")
    samples = {sample.image_id: sample for sample in listed(root)}
    with pytest.raises(UnreadableError, match="leads out of the dataset's root"):
        read_image(samples["cat/2.jpg"], {})
    (root / "dog").symlink_to(outside)
    with pytest.raises(UnreadableError, match="leads out of the dataset's root"):
        read_image(Sample("dog/2.jpg", str(root / "dog/2.jpg"), root=str(root)), {})
    (tmp_path / "root-2").mkdir()  # a name that begins with the root's is no folder inside
    (root / "dog").unlink()
    (root / "dog").symlink_to("../root-2")
    assert "leads out" in refused(lambda: listed(root))


def test_a_root_that_is_a_link_may_hold_links_to_its_own_folders(tmp_path: Path) -> None:
    save(tmp_path / "data", ".store/1.jpg")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "data" / ".store")
    (tmp_path / "root").symlink_to("data")
    (sample,) = listed(tmp_path / "root")
    assert sample.image_id == "cat/1.jpg"
    assert read_image(sample, {}).size == (24, 20)


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    save(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "other").symlink_to("../b")
    (tmp_path / "b" / "other").symlink_to("../a")
    samples = listed(tmp_path)
    assert {"a/1.jpg", "b/2.jpg", "a/other/2.jpg", "b/other/1.jpg"} == {sample.image_id for sample in samples}
    left_out, doubled = samples.notes.lines()
    assert "behind links back to a folder that holds them (a/other/other, a/self, a/up, ...)" in left_out
    assert "images listed twice, once through a link to a folder of the dataset: 2 (" in doubled


def test_a_tower_of_links_that_would_double_a_million_times_ends(tmp_path: Path) -> None:
    for level in range(30):
        (tmp_path / f".{level}").mkdir()
        for side in "lr":
            (tmp_path / f".{level}" / side).symlink_to(f"../.{level + 1}")
    save(tmp_path, ".30/x.jpg", "a.jpg")
    (tmp_path / "top").symlink_to(".0")
    samples = listed(tmp_path)
    assert [sample.image_id for sample in samples] == ["a.jpg"]
    assert "behind links back to a folder that holds them" in samples.notes.left_out_text()


def test_a_link_to_nothing_is_counted_where_it_may_have_been_a_class(tmp_path: Path) -> None:
    save(tmp_path, "a/1.jpg")
    (tmp_path / "dog").symlink_to("/mnt/not-mounted/dog")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dead.png").symlink_to("nowhere.png")
    samples = listed(tmp_path)
    assert [sample.image_id for sample in samples] == ["a/1.jpg", "dead.png"]
    assert samples.notes.lines()[0] == "dataset: files and folders left out: 2 behind links to nothing (dog, loop)"


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


# The published datasets


def test_the_published_layouts_leave_nothing_out(tmp_path: Path) -> None:
    cub = dataset_layouts.cub(tmp_path / "CUB_200_2011", tmp_path / "segmentations")
    palm, idrid = dataset_layouts.palm(tmp_path / "palm"), dataset_layouts.idrid(tmp_path / "idrid")
    sections = [{"kind": "cub", "root": cub}, {"kind": "palm", "root": palm}]
    sections += [{"kind": "idrid", "root": idrid, "part": part} for part in ("grading", "segmentation")]
    for section in sections:
        samples = list_samples(parse_dataset(section | {"root": str(section["root"])}), {})
        assert samples.notes.lines() == [], section


def test_cub_counts_images_and_segmentations_that_do_not_belong_together(tmp_path: Path) -> None:
    root = dataset_layouts.cub(tmp_path / "CUB_200_2011", tmp_path / "segmentations")
    save(root, "images/001.Albatross/Extra.jpg")
    first = next((tmp_path / "segmentations").rglob("*.png"))
    first.rename(first.with_name("Nobody.png"))
    left_out, remark = list_samples(CubConfig(kind="cub", root=str(root)), {}).notes.lines()
    assert "1 that images.txt does not name (images/001.Albatross/Extra.jpg)" in left_out
    assert "1 that are segmentations of no image (" in left_out
    assert remark.startswith("dataset: images without a segmentation, whose region is the box: 1 (such as ")


def test_palm_counts_photographs_masks_and_rows_that_do_not_belong_together(tmp_path: Path) -> None:
    root = dataset_layouts.palm(tmp_path)
    save(root, "PALM-Training400/PALM-Training400/P0009.png", "PALM-Testing400/T0001.jpg")
    dataset_layouts.save_mask(root / "PALM-Training400" / "Lesion_Masks" / "Atrophy" / "P0333.bmp", None)
    (root / "PALM-Validation400" / "V0004.jpg").unlink()
    config = parse_dataset({"kind": "palm", "root": str(root)})
    left_out, remark = list_samples(config, {}).notes.lines()
    assert "1 with another name than P0001.jpg (PALM-Training400/PALM-Training400/P0009.png)" in left_out
    assert "1 in other folders than PALM-Training400 and PALM-Validation400 (PALM-Testing400/T0001.jpg)" in left_out
    assert "1 that are masks of no photograph (P0333)" in left_out
    assert remark.startswith("dataset: rows of PALM-Validation-GT/PM_Label")
    assert remark.endswith("that name no photograph: 1 (such as V0004)")
    (root / "PALM-Validation-GT" / "labels.csv").write_text("imgName,Label\nV0001.jpg,1\n")
    assert "there is another table of labels" in refused(lambda: list_samples(config, {}))


def test_idrid_reads_photographs_of_any_format_and_refuses_two_of_one_name(tmp_path: Path) -> None:
    root = dataset_layouts.idrid(tmp_path)
    config = parse_dataset({"kind": "idrid", "root": str(root), "part": "segmentation"})
    before = [sample.image_id for sample in list_samples(config, {})]
    first = next(path for path in sorted(root.rglob("*.jpg")) if "A. Segmentation" in str(path))
    upper = first.rename(first.with_suffix(".JPG"))
    assert [sample.image_id for sample in list_samples(config, {})] == before
    save_picture(upper.with_suffix(".png"))
    assert "has the same id" in refused(lambda: list_samples(config, {}))
    upper.with_suffix(".png").unlink()
    upper.unlink()
    assert "that are masks of no photograph" in line(list_samples(config, {}))


def test_a_reader_of_a_plugin_may_return_a_plain_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.datasets import DATASETS, DatasetKind

    save(tmp_path, "a.png", "b.txt.png")
    plain = DatasetKind("folder", FolderConfig, lambda config, storage: list(read_folder(config, storage)))
    monkeypatch.setitem(DATASETS, "folder", plain)
    assert listed(tmp_path).notes.lines() == []
