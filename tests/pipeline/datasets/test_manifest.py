"""Manifests in CSV and Parquet: every optional column, and every row that is refused with its number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from pipeline.datasets import Masks, Sample, list_samples
from pipeline.datasets.images import UnreadableError, read_image
from pipeline.datasets.manifest import ManifestConfig
from tests.support.plans import refused, save_picture

COLUMNS: dict[str, list[Any]] = {
    "path": ["a.png", "deep/b c.png", "c.png"],
    "label": [3, 4, 5],
    "class_name": ["cat", None, "dog"],
    "mask": ["masks/a.png", None, None],
    "bbox": ["1 2 3.5 4", None, "0,0,5,6"],
    "split": ["test", "train", None],
    "image_id": ["007", "B", None],
    "photographer": ["x", "y", "z"],
}


def write(folder: Path, columns: dict[str, Any] | str, suffix: str = "csv") -> Path:
    file = folder / f"manifest.{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(columns, str):
        file.write_text(columns)
    elif suffix == "csv":
        pyarrow.csv.write_csv(pa.table(columns), file)
    else:
        pyarrow.parquet.write_table(pa.table(columns), file)
    return file


def read(file: Path | str, **keys: Any) -> list[Sample]:
    return list_samples(ManifestConfig(kind="manifest", root=str(file), **keys), {})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "pq", "PARQUET"])
def test_every_column_is_read(tmp_path: Path, suffix: str) -> None:
    root = str(tmp_path)
    assert read(write(tmp_path, COLUMNS, suffix)) == [
        Sample("007", f"{root}/a.png", 3, "cat", "test", Masks((f"{root}/masks/a.png",), root=root), (1.0, 2.0, 3.5, 4.0), root),
        Sample("B", f"{root}/deep/b c.png", 4, None, "train", None, None, root),
        Sample("c.png", f"{root}/c.png", 5, "dog", None, None, (0.0, 0.0, 5.0, 6.0), root),
    ]


def test_a_path_is_all_that_is_needed_and_the_order_is_the_manifests(tmp_path: Path) -> None:
    samples = read(write(tmp_path, {"path": ["b.png", "a.png"]}))
    assert samples == [Sample("b.png", f"{tmp_path}/b.png", root=str(tmp_path)), Sample("a.png", f"{tmp_path}/a.png", root=str(tmp_path))]


def test_labels_that_are_names_are_numbered_in_sorted_order(tmp_path: Path) -> None:
    samples = read(write(tmp_path, "path,label\na.png,cat\nb.png,\nc.png,ant\nd.png,cat\n"))
    assert [(sample.label, sample.class_name) for sample in samples] == [(1, "cat"), (None, None), (0, "ant"), (1, "cat")]


def test_ids_splits_and_names_stay_as_they_are_written(tmp_path: Path) -> None:
    samples = read(write(tmp_path, "path,image_id,split,class_name\n1,0,01,true\n2,00,2020-01-01,1.0\n"))
    assert [(sample.image_id, sample.split, sample.class_name) for sample in samples] == [("0", "01", "true"), ("00", "2020-01-01", "1.0")]
    assert [sample.image_id for sample in read(write(tmp_path, {"path": ["a", "b"], "image_id": [0, 1]}, "parquet"))] == ["0", "1"]


def test_boxes_may_be_lists(tmp_path: Path) -> None:
    samples = read(write(tmp_path, {"path": ["a", "b"], "bbox": [[1, 2, 3, 4], None]}, "parquet"))
    assert [sample.bbox for sample in samples] == [(1.0, 2.0, 3.0, 4.0), None]


def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    file = tmp_path / "manifest.csv"
    file.write_bytes('\ufeffpath,label\r\n"a, b.png",é\r\n'.encode())
    assert [(sample.image_id, sample.class_name) for sample in read(file)] == [("a, b.png", "é")]


def test_only_one_split_is_read_and_its_classes_have_the_numbers_of_the_whole(tmp_path: Path) -> None:
    file = write(tmp_path, "path,label,split\na,ant,train\nb,cat,test\nc,bee,test\n")
    assert [(sample.image_id, sample.label) for sample in read(file, split="test")] == [("b", 2), ("c", 1)]
    assert len(read(file)) == 3


@pytest.mark.parametrize(
    ("text", "has"), [("path,split\na,train\n", "has train"), ("path\na\n", "has no splits"), ("path,split\na,\n", "has no splits")]
)
def test_a_split_that_leaves_nothing_is_refused_with_those_that_there_are(tmp_path: Path, text: str, has: str) -> None:
    message = refused(lambda: read(write(tmp_path, text), split="test"))
    assert message == f"{tmp_path}/manifest.csv: no images in the split 'test'; the dataset {has}; look at dataset.split"


def test_urls_stand_for_themselves_and_other_paths_lie_beside_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "data", "path,mask\ns3://bucket/a.png,masks/a.png\nb.png,s3://bucket/b.png\n")
    monkeypatch.chdir(tmp_path)
    for root in (str(file), "data/manifest.csv", f"file://{file}"):
        first, second = read(root)
        assert (first.path, first.masks) == ("s3://bucket/a.png", Masks((f"{tmp_path}/data/masks/a.png",), root=f"{tmp_path}/data"))
        assert (second.path, second.masks) == (f"{tmp_path}/data/b.png", Masks(("s3://bucket/b.png",), root=f"{tmp_path}/data"))
        assert second.root == f"{tmp_path}/data"


def test_a_link_out_of_the_manifests_folder_is_unreadable(tmp_path: Path) -> None:
    secret = save_picture(tmp_path / "secret.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").symlink_to(secret)
    (sample,) = read(write(tmp_path / "data", {"path": ["a.png"]}))
    with pytest.raises(UnreadableError, match="leads out of the dataset's root"):
        read_image(sample, {})


BOX = "bbox must be left top right bottom with left < right and top < bottom"


@pytest.mark.parametrize(
    ("text", "row", "words"),
    [
        ("path\na.png\n../b.png\n", 2, "../b.png: leaves the dataset's root"),
        ("path\na/../../b.png\n", 1, "leaves the dataset's root"),
        ("path\n/etc/b.png\n", 1, "/etc/b.png: leaves the dataset's root"),
        ("path,mask\na.png,../m.png\n", 1, "../m.png: leaves the dataset's root"),
        ("path,mask\na.png,/m.png\n", 1, "/m.png: leaves the dataset's root"),
        ('path,label\na,1\n"",2\n', 2, "path is empty"),
        ("path,bbox\na,1 2 3\n", 1, f"{BOX}, not '1 2 3'"),
        ("path,bbox\na,1 2 3 4 5\n", 1, f"{BOX}, not '1 2 3 4 5'"),
        ("path,bbox\na,3 2 1 4\n", 1, f"{BOX}, not '3 2 1 4'"),
        ("path,bbox\na,1 4 3 4\n", 1, BOX),
        ("path,bbox\na,one two three four\n", 1, f"{BOX}, not 'one two three four'"),
        ("path,bbox\na,5\n", 1, f"{BOX}, not '5'"),
        ("path,bbox\na,0 0 inf inf\n", 1, BOX),
        ("path,bbox\na,0 nan 1 1\n", 1, BOX),
        ("path,label\na,1\nb,1.5\n", 2, "label must be a whole number or a name, not 1.5"),
        ("path,label\na,99999999999\n", 1, "label must be a whole number or a name, not 99999999999"),
        ("path,label\na,2020-01-01\n", 1, "label must be a whole number or a name"),
    ],
    ids=repr,
)
def test_a_bad_row_is_refused_with_its_number(tmp_path: Path, text: str, row: int, words: str) -> None:
    file = write(tmp_path, text)
    message = refused(lambda: read(file))
    assert message.startswith(f"{file}, row {row}: ")
    assert words in message


@pytest.mark.parametrize(
    "columns",
    [
        {"path": ["a"], "bbox": [[1.0, 2.0, None, 4.0]]},
        {"path": ["a"], "bbox": [5]},
        {"path": ["a"], "label": [float("nan")]},
        {"path": [None]},
    ],
    ids=repr,
)
def test_a_bad_row_of_a_parquet_file_is_refused_too(tmp_path: Path, columns: dict[str, Any]) -> None:
    assert "manifest.parquet, row 1: " in refused(lambda: read(write(tmp_path, columns, "parquet")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na,1\n", "no column 'path'; its columns are file, label"),
        ("path;label\na;1\n", "no column 'path'; its columns are path;label"),
        ("path,path\na,b\n", "two columns are named 'path'"),
        ("path\na\na\n", "two images have the id 'a'"),
        ("path,image_id\na,1\nb,1\n", "two images have the id '1'"),
        ("path\n", "no images"),
        ("", "cannot be read as CSV or Parquet"),
        ("path,label\na\n", "cannot be read as CSV or Parquet"),
    ],
    ids=repr,
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    message = refused(lambda: read(write(tmp_path, text)))
    assert message.startswith(f"{tmp_path}/manifest.csv")
    assert words in message


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_text("no parquet")
    (tmp_path / "folder.csv").mkdir()
    for name in ("broken.parquet", "folder.csv", "nowhere.csv"):
        message = refused(lambda name=name: read(tmp_path / name))
        assert message.startswith(f"{tmp_path}/{name}: cannot be read as CSV or Parquet")
        assert message.endswith("set dataset.root to a manifest")


def test_ids_that_are_drawn_must_differ_and_no_others(tmp_path: Path) -> None:
    file = write(tmp_path, "path,split\na,train\nb,test\na,valid\n")
    assert [sample.image_id for sample in read(file, split="valid")] == ["a"]
    assert "two images have the id 'a'" in refused(lambda: read(file))
