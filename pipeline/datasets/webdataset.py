"""Dataset kind `webdataset`: tars with the members KEY.jpg, KEY.cls, KEY.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from pipeline.datasets.formats import has_image_suffix
from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.labels import as_label
from pipeline.datasets.listing import Listing, ListingNotes
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Sample, number_classes
from pipeline.datasets.split_names import split_of_file
from pipeline.datasets.tar_index import IndexedMember, TarIndex, index_tar
from pipeline.errors import InputError, one_line
from pipeline.storage.retry import UNREACHABLE

_READERS = 8  # tars that are indexed at the same time
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_FIELDS = ("cls", "json", "txt")

# (URL, size, time or ETag, labels) -> index. The report and exports list a dataset again, and reading a tar of an object store is slow.
_indexes: dict[tuple[Any, ...], TarIndex] = {}
_MOST_INDEXES = 1000


class WebDatasetConfig(DatasetConfig):
    """Configuration of a WebDataset."""

    root_description = "a folder of tars"

    kind: Literal["webdataset"] = Field(description="Tars below a folder, whose members KEY.jpg, KEY.cls, KEY.json are one sample.")
    labels: Literal["auto", "cls", "json", "txt", "none"] = Field(
        "auto",
        description="Member with the class: KEY.cls (a number or a name), KEY.json (with the keys label, class_name, split) or KEY.txt "
        "(a name). `auto`: KEY.cls, else KEY.json; a KEY.txt is often a caption, and is read only if named.",
    )


def read_webdataset(config: WebDatasetConfig, storage: Mapping[str, Any]) -> Listing:
    """List the images in the tars, in the order of tars and members.

    An image's key is its path up to the first dot of its name; what follows is the field. The image is the first field that is a suffix
    of an image.

    Raises:
        InputError: if the folder is missing, or a tar is none, compressed, cut or damaged, or a label cannot be read.
    """
    root, notes = Root.at(str(config.root), storage, "a folder of tars"), ListingNotes()
    tars = []
    for relative in root.find(notes=notes):
        if relative.endswith(".tar"):
            tars.append(relative)
        elif relative.endswith(_COMPRESSED):
            notes.leave_out("that are compressed tars, in which no image can be found without reading all before it", relative)
        else:
            notes.leave_out("that are no tars", relative)
    samples: list[Sample] = []
    with ThreadPoolExecutor(_READERS) as readers:
        for relative, index in zip(tars, readers.map(lambda relative: _index(root, relative, config.labels), tars), strict=True):
            samples += _samples(root, relative, index, config.labels, notes)
    return Listing(number_classes(samples), notes)


WEBDATASET = DatasetKind("webdataset", WebDatasetConfig, read_webdataset)


@dataclass
class _Key:
    """Members of one key: the image, and the fields that hold its class."""

    image: IndexedMember | None = None
    fields: dict[str, IndexedMember] = field(default_factory=dict)


def _index(root: Root, relative: str, labels: str) -> TarIndex:
    url = root.path(relative)
    try:
        info = root.fs.info(f"{root.base}/{relative}")
        key = (url, info.get("size"), str(info.get("ETag") or info.get("mtime") or info.get("created")), labels)
        if key in _indexes:
            return _indexes[key]
        wanted = _FIELDS[:2] if labels == "auto" else (labels,)
        with root.fs.open(f"{root.base}/{relative}", "rb") as file:
            index = index_tar(file, url, lambda name: _split_name(name)[1] in wanted)
    except (OSError, ValueError, *UNREACHABLE) as error:
        raise InputError(f"{url}: cannot be read ({one_line(error)}); look at dataset.root and storage") from None
    if len(_indexes) >= _MOST_INDEXES:
        _indexes.clear()
    _indexes[key] = index
    return index


def _split_name(name: str) -> tuple[str, str]:
    """Split a member's name into key and field; the field is empty if there is none."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return f"{folder}{slash}{key}", suffix.lower() if key else ""


def _samples(root: Root, relative: str, index: TarIndex, labels: str, notes: ListingNotes) -> list[Sample]:
    keys: dict[str, _Key] = {}
    for member in index.members:
        key, suffix = _split_name(member.name)
        if not suffix:
            notes.leave_out("that have no key and field in a tar", f"{relative}/{member.name}")
            continue
        sample = keys.setdefault(key, _Key())
        if "." not in suffix and has_image_suffix(f"x.{suffix}"):  # KEY.seg.png is no image of its own
            if sample.image is None:
                sample.image = member
            else:
                notes.leave_out("that are a second image of a key in a tar", f"{relative}/{member.name}")
        elif suffix in _FIELDS:
            sample.fields[suffix] = member
    for name in index.others:
        notes.leave_out("that are links, devices or sparse files in a tar", f"{relative}/{name}")
    if not index.is_ended:
        notes.remark(f"{root.path(relative)} has no mark of its end: it may be cut")
    samples = []
    for key, found in keys.items():
        if found.image is None:
            notes.leave_out("that are keys without an image in a tar", f"{relative}/{key}")
            continue
        try:
            label, class_name, split = _label(found, labels)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{root.path(relative)}: the label of {key!r} cannot be read ({one_line(error)})") from None
        samples.append(
            Sample(
                image_id=f"{relative}/{found.image.name}",
                path=found.image.address.path(),
                label=label,
                class_name=class_name,
                split=split or split_of_file(relative),
                root=root.local,
            )
        )
    return samples


def _label(found: _Key, labels: str) -> tuple[int | None, str | None, str | None]:
    """Return a key's label, class name and split; None for what it lacks."""
    order = _FIELDS[:2] if labels == "auto" else (labels,)
    member = next((found.fields[name] for name in order if name in found.fields), None)
    if member is None:
        return None, None, None
    if member.data is None:
        raise ValueError(f"{member.name} has {member.address.size:,} bytes, more than a label has")
    text = member.data.decode("utf-8").strip()
    if _split_name(member.name)[1] != "json":
        is_number = text.isascii() and text.isdecimal() and labels != "txt"
        return (int(text), None, None) if is_number and len(text) < 10 else (None, text or None, None)
    values = json.loads(text)
    label, class_name, split = values.get("label", values.get("cls")), values.get("class_name"), values.get("split")
    if isinstance(label, str):
        label, class_name = None, class_name or label
    return as_label(label), None if class_name is None else str(class_name), None if split is None else str(split)
