"""Listings: every file is a sample, or it is counted with the reason, or the dataset is refused by name."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.datasets import list_samples, parse_dataset
from pipeline.datasets.cub import CubConfig
from pipeline.datasets.folder import FolderConfig, read_folder
from pipeline.datasets.listing import ListingNotes
from pipeline.plan import make_plan
from tests.support import dataset_layouts
from tests.support.listings import line, listed, save
from tests.support.plans import configuration, refused, save_picture

# What is left out


def test_files_of_other_types_are_counted_by_their_suffixes(tmp_path: Path) -> None:
    save(tmp_path, "a/1.png")
    for name in ("a/1.txt", "a/2.TXT", "b/3.txt", "a/x.npy", "a/IM0001", "b/1.png.bak", "b/scan.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    samples = listed(tmp_path)
    assert len(samples) == 1
    assert line(samples) == "dataset: files and folders left out: 7 with a suffix of no image (3 .txt, 1 .bak, 1 .nii, ...)"
    assert samples.notes.left_out() == [
        {"reason": "with a suffix of no image", "count": 7, "examples": {".txt": 3, ".bak": 1, ".nii": 1}},
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
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).touch()
    assert "no images; files and folders left out: 2 with a suffix of no image (2 .nii); look at dataset.root" in refused(
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
