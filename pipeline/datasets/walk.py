"""Walk of a local folder: the files below it, through links that stay inside."""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.datasets.formats import has_image_suffix
from pipeline.datasets.listing import ListingNotes
from pipeline.datasets.sample import as_text
from pipeline.errors import InputError, one_line, printable

HIDDEN = "hidden"
_BROKEN_LINK = "behind links to nothing"
_CYCLE = "behind links back to a folder that holds them"
_UNLISTABLE = "in folders that cannot be listed"
_MOST_LINKS = 8  # links to folders in one path: each level of links between folders may double the number of files


@dataclass(frozen=True)
class _Folder:
    """A folder to list.

    Attributes:
        prefix: its path relative to the start, with a slash at the end.
        real: its path without links.
        entered: real path of the folder at which the start, or the last link on the way here, entered.
        earlier: for each link on the way, the real paths between which the way led before it: (entered, folder of the link).
    """

    prefix: str
    real: str
    entered: str
    earlier: tuple[tuple[str, str], ...] = ()

    def is_inside(self, real: str) -> bool:
        """Return True if the path from the start to here passes `real`."""
        spans = ((self.entered, self.real), *self.earlier)
        return any(_is_below(real, first) and _is_below(last, real) for first, last in spans)


@dataclass
class _Links:
    """Links to folders that were met.

    Attributes:
        outside: those that lead out of the start: relative path, target.
        followed: relative path -> real path of those that stay inside.
    """

    outside: list[tuple[str, str]] = field(default_factory=list)
    followed: dict[str, str] = field(default_factory=dict)


def walk(start: str, notes: ListingNotes) -> list[str]:
    """List the files below a local folder as sorted relative paths.

    Hidden files and folders are left out. Links to folders inside the start are followed, but never back to a folder that holds
    them; a link with an image's suffix counts as a file, whatever it leads to.

    Args:
        notes: where what is left out is counted.

    Raises:
        InputError: if a link leads to a folder outside: reading an image through it would be refused, too.
        OSError: if the start itself cannot be listed.
    """
    real_start = os.path.realpath(start)
    files: list[str] = []
    links = _Links()
    waiting = [_Folder("", real_start, real_start)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(f"{start}/{folder.prefix}") as entries:
                for entry in entries:
                    name, relative = entry.name, folder.prefix + entry.name
                    if name.startswith("."):
                        notes.leave_out(HIDDEN, relative)
                    elif entry.is_symlink():
                        if has_image_suffix(name) or not Path(entry.path).is_dir():
                            _add_linked_file(entry, relative, files, notes)
                        elif (linked := _follow(entry, relative, folder, real_start, links, notes)) is not None:
                            waiting.append(linked)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(_Folder(f"{relative}/", f"{folder.real}/{name}", folder.entered, folder.earlier))
                    else:
                        files.append(relative)
        except OSError as error:
            if not folder.prefix:
                raise
            notes.leave_out(_UNLISTABLE, f"{folder.prefix[:-1]}: {one_line(error)}")
    if links.outside:
        raise InputError(_outside_message(start, links.outside))
    files.sort()
    _remark_doubled(files, real_start, links.followed, notes)
    return files


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _add_linked_file(entry: os.DirEntry[str], relative: str, files: list[str], notes: ListingNotes) -> None:
    """Add a link that is no folder; without a target it must be named as an image."""
    if has_image_suffix(entry.name) or Path(entry.path).exists():
        files.append(relative)
    else:
        notes.leave_out(_BROKEN_LINK, relative)


def _follow(entry: os.DirEntry[str], relative: str, folder: _Folder, real_start: str, links: _Links, notes: ListingNotes) -> _Folder | None:
    """Return the folder that a link leads to; None if it is not followed."""
    target = os.path.realpath(entry.path)
    if not _is_below(target, real_start):
        links.outside.append((relative, target))
    elif folder.is_inside(target) or len(folder.earlier) >= _MOST_LINKS:
        notes.leave_out(_CYCLE, relative)
    else:
        links.followed[relative] = target
        return _Folder(f"{relative}/", target, target, (*folder.earlier, (folder.entered, folder.real)))
    return None


def _outside_message(start: str, outside: list[tuple[str, str]]) -> str:
    """Name the first link that leads out, and count the others."""
    relative, target = min(outside)
    more = f" ({len(outside)} such links in all)" if len(outside) > 1 else ""
    text = (
        f"{start}: the folder {relative} is a link to {target}, which leads out of the dataset's root{more}; "
        "move the files below the root, set dataset.root to a folder that holds both, or remove the link"
    )
    return printable(as_text(text))


def _remark_doubled(files: list[str], real_start: str, followed: dict[str, str], notes: ListingNotes) -> None:
    """Add a remark on files that are listed a second time, through a link."""
    seen: set[str] = set()
    doubled: list[str] = []
    count = 0
    for relative, target in sorted(followed.items()):
        below = os.path.relpath(target, real_start)
        is_listed = not any(part.startswith(".") for part in below.split("/") if part != ".")
        if is_listed or any(_is_below(target, other) for other in seen):
            inside = files[bisect_left(files, f"{relative}/") : bisect_left(files, f"{relative}0")]  # "0" follows "/"
            images = sum(map(has_image_suffix, inside))
            count += images
            doubled += [f"{relative} -> {below}"] if images else []
        seen.add(target)
    if doubled:
        shown = ", ".join([*doubled[:3], *(["..."] if len(doubled) > 3 else [])])
        notes.remark(f"images listed twice, once through a link to a folder of the dataset: {count:,} ({shown})")
