"""Dataset kind `folder`: images below a folder.

Layouts are `root/<class>/*.jpg`, `root/<split>/<class>/*.jpg` or flat.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from pipeline.datasets.formats import has_image_suffix, suffix_of
from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.listing import Listing, ListingNotes
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Sample, as_text, number_classes
from pipeline.datasets.split_names import SPLIT_NAMES


class FolderConfig(DatasetConfig):
    """Configuration of a folder of images."""

    root_description = "a folder of images"

    kind: Literal["folder"] = Field(
        description="All images below a folder; the name of a subfolder is the class of its images. Subfolders that are all named train, "
        "val, valid, validation or test are splits, and their subfolders the classes."
    )


def read_folder(config: FolderConfig, storage: Mapping[str, Any]) -> Listing:
    """List all images below the root in the order of their paths.

    The name of a subfolder is the class of its images, in Unicode's composed form (NFC). If all subfolders with images are named like
    splits and one of them has subfolders with images, they are splits, and the classes are their subfolders.

    Raises:
        InputError: if the folder is missing or cannot be read, or a link leads to a folder outside.
    """
    root, notes = Root.at(str(config.root), storage, "a folder of images"), ListingNotes()
    images = []
    for relative in root.find(notes=notes):
        if has_image_suffix(relative):
            images.append(relative)
        else:
            notes.leave_out("with a suffix of no image", suffix_of(relative) or "no suffix")
    layout = _Layout(images)
    layout.remark(notes)
    samples = []
    for relative in images:
        split, class_name = layout.split_and_class(relative)
        samples.append(Sample(as_text(relative), root.path(relative), class_name=class_name, split=split, root=root.local))
    return Listing(number_classes(samples), notes)


FOLDER = DatasetKind("folder", FolderConfig, read_folder)


class _Layout:
    """Layout of a folder: which level is the class, and which, if any, the split.

    Args:
        images: relative paths.
    """

    def __init__(self, images: Sequence[str]) -> None:
        self._in_root = 0
        self._direct: Counter[str] = Counter()  # first folder -> images that lie in it and in none of its subfolders
        self._second: dict[str, set[str]] = defaultdict(set)  # first folder -> its subfolders with images
        for relative in images:
            first, _, rest = relative.partition("/")
            second, _, name = rest.partition("/")
            if not rest:
                self._in_root += 1
            elif not name:
                self._direct[first] += 1
            else:
                self._second[first].add(second)
        self._folders = sorted({*self._direct, *self._second})
        self._split_folders = [name for name in self._folders if name.casefold() in SPLIT_NAMES]
        self.has_splits = bool(self._folders) and self._split_folders == self._folders and bool(self._second)

    def split_and_class(self, relative: str) -> tuple[str | None, str | None]:
        """Return the split and the class of an image; None for what it does not have."""
        folders = relative.split("/")[:-1]
        split = folders.pop(0) if self.has_splits and folders else None
        class_name = _nfc(folders[0]) if folders else None
        return split and _nfc(split), class_name

    def remark(self, notes: ListingNotes) -> None:
        """Add remarks on images without a class, and on classes that are perhaps none."""
        if self._in_root and self._folders:
            notes.remark(f"images in the root itself, beside the folders, which have no class: {self._in_root:,}")
        without = {name: self._direct[name] for name in self._folders if self._direct[name]}
        if self.has_splits:
            for name, count in without.items():
                notes.remark(f"images in the folder of the split {name} itself, which have no class: {count:,}")
        elif self._second:
            self._remark_classes(notes, bool(without))
        elif self._folders and self._split_folders == self._folders:
            notes.remark(
                f"the folders {_names(self._folders)} are named like splits, but have no subfolders of classes: they are taken for classes"
            )

    def _remark_classes(self, notes: ListingNotes, has_direct: bool) -> None:
        """Add a remark if the second folders look like the classes."""
        shared = set.intersection(*(self._second[name] for name in self._folders)) if not has_direct else set()
        splits = [name for name in self._split_folders if name in self._second]
        if splits and len(splits) < len(self._folders):
            others = [name for name in self._folders if name not in splits]
            notes.remark(
                f"{_names(splits)} are taken for classes although they are named like splits, because {_names(others)} lie beside them; "
                "move those out of the root if they are no part of the dataset, or write a manifest"
            )
        elif len(shared) > 1:
            notes.remark(
                f"the first folder of an image is its class ({_names(self._folders)}), and each of these holds the folders "
                f"{_names(sorted(shared))}; if those are the classes, name the first folders train, val or test, or set dataset.root to one"
            )


def _names(folders: Sequence[str]) -> str:
    """Name the first of some folders."""
    return ", ".join([*folders[:4], *(["..."] if len(folders) > 4 else [])])


@lru_cache(4096)
def _nfc(name: str) -> str:
    """Return a folder's name as valid UTF-8 in composed form.

    macOS and archives made there have decomposed names, which look the same and are other texts.
    """
    return unicodedata.normalize("NFC", as_text(name))
