"""Tars and Parquet files as datasets: what is listed, read at random, refused, and noticed when it changes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.datasets import Sample, list_samples, parse_dataset
from pipeline.datasets.checksums import sample_checksums
from pipeline.datasets.contained import ParquetCell, TarMember, parse_address
from pipeline.datasets.files import read_file
from pipeline.datasets.images import UnreadableError, read_image
from tests.support.plans import refused, save_picture

STRANGE = 'it\'s "<script>alert(1)</script>"\n' + "é" * 100  # 231 bytes


def picture(folder: Path, seed: int, width: int = 24) -> bytes:
    return save_picture(folder / "picture.png", width, seed=seed).read_bytes()


def write_tar(file: Path, members: Mapping[str, bytes], format_: int = tarfile.PAX_FORMAT) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=format_) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def read(kind: str, root: Path | str, **keys: Any) -> Any:
    return list_samples(parse_dataset({"kind": kind, "root": str(root), **keys}), {})


def facts(samples: list[Sample]) -> list[tuple[Any, ...]]:
    return [(sample.image_id, sample.label, sample.class_name, sample.split) for sample in samples]


# Tars


def test_members_of_a_tar_are_samples_and_are_read_by_their_place(tmp_path: Path) -> None:
    pictures = [picture(tmp_path, seed) for seed in range(5)]
    root = tmp_path / "data"
    names = ["0.png", f"deep/{STRANGE}.png", "2.PNG", "3.png", "4.png"]
    write_tar(root / "train-000.tar", {names[0]: pictures[0], "0.cls": b"3\n", names[1]: pictures[1], f"deep/{STRANGE}.cls": b"7"})
    write_tar(root / "train-001.tar", {"2.json": b'{"label": 4, "class_name": "bee", "split": "val"}', names[2]: pictures[2]})
    write_tar(
        root / "test/x.tar",
        {
            "3.txt": b"a caption",
            names[3]: pictures[3],
            "3.seg.png": b"",
            "3.jpg": b"",
            "lost.cls": b"1",
            "readme": b"",
            names[4]: pictures[4],
        },
        tarfile.GNU_FORMAT,
    )
    (root / "b.tar.gz").write_bytes(b"")
    (root / "notes.md").touch()
    samples = read("webdataset", root)
    assert facts(samples) == [
        ("test/x.tar/3.png", None, None, "test"),
        ("test/x.tar/4.png", None, None, "test"),
        ("train-000.tar/0.png", 3, None, "train"),
        (f"train-000.tar/deep/{STRANGE}.png", 7, None, "train"),
        ("train-001.tar/2.PNG", 4, "bee", "val"),
    ]
    assert [read_file(sample.path, sample.root, {}) for sample in reversed(samples)] == [pictures[i] for i in (2, 1, 0, 4, 3)]
    assert all(checksums is not None for checksums in sample_checksums(samples, {}))
    assert read_image(samples[0], {}).image.size == (24, 20)
    assert {reason.split(",")[0]: count for reason, count in samples.notes.counts.items()} == {
        "that are compressed tars": 1,
        "that are no tars": 1,
        "that are a second image of a key in a tar": 1,
        "that are keys without an image in a tar": 1,
        "that have no key and field in a tar": 1,
    }
    assert [sample.class_name for sample in read("webdataset", root / "test", labels="txt")] == ["a caption", None]
    assert {sample.label for sample in read("webdataset", root, labels="none")} == {None}


def test_a_tar_in_an_object_store_is_read_by_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [picture(tmp_path, seed) for seed in range(3)]
    file = write_tar(tmp_path / "a.tar", {f"{i}.png": data for i, data in enumerate(pictures)})
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/contained/a.tar", file.read_bytes())
    ranges = []
    cat_file = type(memory).cat_file

    def counted(self: Any, path: str, start: int | None = None, end: int | None = None, **keys: Any) -> bytes:
        ranges.append((end or 0) - (start or 0))
        data: bytes = cat_file(self, path, start, end, **keys)
        return data

    try:
        samples = read("webdataset", "memory://contained")
        monkeypatch.setattr(type(memory), "cat_file", counted)
        assert [read_file(sample.path, sample.root, {}) for sample in samples] == pictures
        assert ranges == [512 + len(data) for data in pictures]
    finally:
        memory.rm("/contained", recursive=True)


@pytest.mark.parametrize("length", [1, 511, 512, 700, 1500, 2049, 3071])
def test_a_tar_that_is_cut_is_refused_wherever_it_is_cut(length: int, tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", {"a.png": b"x" * 900, "b.png": b"y" * 900})
    data = file.read_bytes()
    assert data[3072:].strip(b"\0") == b""  # two members of 512 + 1024 bytes
    file.write_bytes(data[:length])
    message = refused(lambda: read("webdataset", tmp_path))
    assert message.startswith(f"{file}: ")
    assert "copy it again" in message


def test_a_tar_that_is_cut_between_two_members_is_a_remark(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", {"a.png": b"x" * 900, "b.png": b"y" * 900})
    file.write_bytes(file.read_bytes()[:1536])
    samples = read("webdataset", tmp_path)
    assert len(samples) == 1
    assert samples.notes.remarks == [f"{file} has no mark of its end: it may be cut"]


def test_a_tar_that_changes_is_noticed_by_its_readers_and_by_the_next_listing(tmp_path: Path) -> None:
    pictures = [picture(tmp_path, seed) for seed in range(2)]
    root = tmp_path / "data"
    file = write_tar(root / "a.tar", {"a.png": pictures[0], "b.png": pictures[1]})
    before = read("webdataset", root)
    write_tar(file, {"b.png": pictures[1], "a.png": pictures[0]})
    assert [sample.image_id for sample in read("webdataset", root)] == ["a.tar/b.png", "a.tar/a.png"]
    for sample in before:
        with pytest.raises(UnreadableError, match=r"a\.tar has changed since it was listed"):
            read_image(sample, {})
    file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(UnreadableError, match="has changed since it was listed"):
        read_image(before[0], {})
    file.unlink()
    with pytest.raises(UnreadableError, match="cannot read"):
        read_image(before[0], {})


def test_what_is_wrong_in_a_tar_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no image of a format"):
        read_image(read("webdataset", write_tar(tmp_path / "text" / "a.tar", {"a.png": b"no image"}).parent)[0], {})
    cases = {
        "json": ({"a.png": b"", "a.json": b"{"}, "the label of 'a' cannot be read"),
        "array": ({"a.png": b"", "a.json": b"[1]"}, "the label of 'a' cannot be read"),
        "half": ({"a.png": b"", "a.json": b'{"label": 1.5}'}, "whole number"),
        "bytes": ({"a.png": b"", "a.cls": b"\xff"}, "the label of 'a' cannot be read"),
        "large": ({"a.png": b"", "a.cls": b"1" * (1 << 20) + b"1"}, "more than a label has"),
        "none": ({"a.cls": b"1"}, "no images"),
    }
    for name, (members, words) in cases.items():
        folder = write_tar(tmp_path / name / "a.tar", members).parent
        assert words in refused(lambda folder=folder: read("webdataset", folder)), name
    twice = tmp_path / "twice" / "a.tar"
    write_tar(twice, {"a.png": b"x"})
    with tarfile.open(twice, "a") as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    assert "two members have the name 'a.png'" in refused(lambda: read("webdataset", twice.parent))
    outside = write_tar(tmp_path / "outside.tar", {"a.png": picture(tmp_path, 0)})
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.tar").symlink_to(outside)
    with pytest.raises(UnreadableError, match="leads out of the dataset's root"):
        read_image(read("webdataset", tmp_path / "linked")[0], {})


def test_addresses_come_back_from_their_text() -> None:
    for address in (TarMember("s3://b/a::b\n.tar", 1536, 9, "0" * 16), ParquetCell("/a/x.parquet", 2, 3, "f" * 16, "a+b: c")):
        assert parse_address(address.path()) == address
    for path in ("/tar://1+2+0::x", "a.png", "s3://b/a.tar", "tar://x::a.tar", "tar://a.png::b.tar"):
        assert parse_address(path) is None


# Hugging Face


def write_parquet(file: Path, images: list[bytes | None], labels: list[int], names: list[str] | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": [{"bytes": data, "path": "same.png"} for data in images], "label": labels, "other": ["x"] * len(labels)})
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if names else None
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), file, row_group_size=2)


def test_rows_of_parquet_files_are_samples_and_each_row_group_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures: list[bytes | None] = [picture(tmp_path, seed) for seed in range(5)]
    root = tmp_path / "data"
    write_parquet(root / "data/train-00000-of-00001.parquet", [*pictures[:4], None], [1, 0, 1, -1, 0], ["cat", "<b>dog"])
    write_parquet(root / "data/test-00000-of-00001.parquet", pictures[4:], [0], ["cat", "<b>dog"])
    (root / "README.md").touch()
    samples = read("huggingface", root)
    train = "data/train-00000-of-00001.parquet"
    assert facts(samples) == [
        ("data/test-00000-of-00001.parquet/000000", 0, "cat", "test"),
        (f"{train}/000000", 1, "<b>dog", "train"),
        (f"{train}/000001", 0, "cat", "train"),
        (f"{train}/000002", 1, "<b>dog", "train"),
        (f"{train}/000003", None, None, "train"),
        (f"{train}/000004", 0, "cat", "train"),
    ]
    groups = []
    read_row_group = pyarrow.parquet.ParquetFile.read_row_group

    def counted(self: Any, group: int, **keys: Any) -> Any:
        groups.append((group, keys["columns"]))
        return read_row_group(self, group, **keys)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read_row_group", counted)
    assert [read_file(sample.path, sample.root, {}) for sample in samples[1:5]] == pictures[:4]
    assert groups == [(0, ["image.bytes"]), (1, ["image.bytes"])]
    with pytest.raises(UnreadableError, match="has no bytes of the image in row 0 of group 2"):
        read_image(samples[5], {})
    write_parquet(root / train, [*pictures[1:5], None], [1, 0, 1, -1, 0], ["cat", "<b>dog"])
    with pytest.raises(UnreadableError, match="has changed since it was listed"):
        read_image(samples[1], {})


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_metadata_beside_images_name_their_classes(suffix: str, tmp_path: Path) -> None:
    for name in ("train/a.png", "train/b\n<i>.png", "train/c.png", "test/d.png"):
        save_picture(tmp_path / name)
    rows = [("a.png", "dog"), ("b\n<i>.png", "ant"), ("lost.png", None)]
    for folder, content in (("train", rows), ("test", [("d.png", "dog")])):
        table, file = pa.table({"file_name": [row[0] for row in content], "label": [row[1] for row in content]}), tmp_path / folder
        if suffix == "csv":
            pyarrow.csv.write_csv(table, file / "metadata.csv")
        elif suffix == "jsonl":
            (file / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        else:
            pyarrow.parquet.write_table(table, file / "metadata.parquet")
    samples = read("huggingface", tmp_path)
    assert facts(samples) == [
        ("test/d.png", 1, "dog", "test"),
        ("train/a.png", 1, "dog", "train"),
        ("train/b\n<i>.png", 0, "ant", "train"),
        ("train/lost.png", None, None, "train"),
    ]
    assert read_image(samples[2], {}).image.size == (24, 20)
    with pytest.raises(UnreadableError, match="cannot read"):
        read_image(samples[3], {})
    assert samples.notes.left_out() == [{"reason": "that no metadata name", "count": 1, "examples": {"train/c.png": 1}}]


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    cases = {
        "nothing": ("a.png", "x", "has no Parquet files, and none of metadata.csv"),
        "broken": ("a.parquet", "x", "cannot be read as Parquet"),
        "column": ("metadata.csv", "name,label\na,b\n", "no column 'file_name'; its columns are name, label"),
        "outside": ("metadata.csv", "file_name\n../../etc/passwd\n", "row 1: ../../etc/passwd: leaves the dataset's root"),
        "half": ("metadata.csv", "file_name,label\na.png,1.5\n", "row 1: label must be a whole number"),
        "twice": ("metadata.csv", "file_name\na.png\na.png\n", "two images have the id 'a.png'"),
        "json": ("metadata.jsonl", "{", "cannot be read as a table"),
    }
    for name, (file, text, words) in cases.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
        assert words in refused(lambda name=name: read("huggingface", tmp_path / name)), name
    root = tmp_path / "labels"
    write_parquet(root / "a.parquet", [b""], [5], ["cat"])
    assert "row 0: label 5, but the ClassLabel has 1 names" in refused(lambda: read("huggingface", root))
    assert "no column 'img'; set dataset.image_column" in refused(lambda: read("huggingface", root, image_column="img"))
    assert "no column 'fine'; set dataset.label_column" in refused(lambda: read("huggingface", root, label_column="fine"))
    assert "the column 'other' holds no bytes" in refused(lambda: read("huggingface", root, image_column="other"))
