"""Pairs of equal images in two runs: those with the same image_id and content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.runs import RunStore

_COLUMNS = ["image_id", "row", "sha256", "label", "class_name", "crop"]


@dataclass(frozen=True)
class MatchCounts:
    """Numbers of images of two runs, by the result of matching them.

    Attributes:
        same: in both runs with the same content, and done in both: these are compared.
        changed: in both runs with the same image_id but different content.
        gone, new: only in the run before, only in the run after.
        waiting: in both runs, but not done yet in at least one of them.
        before, after: images of each run.
        done_before, done_after: those of them that the run has done.
    """

    same: int
    changed: int
    gone: int
    new: int
    waiting: int
    before: int
    done_before: int
    after: int
    done_after: int


def match_images(before: RunStore, after: RunStore) -> tuple[pa.Table, MatchCounts]:
    """Match the images of two runs by image_id and sha256.

    Returns:
        The images to compare in the order of the run after, with the columns
        `row_before, row_after, image_id, sha256, label, class_name`, and the counts of all images.

    Raises:
        InputError: if no image can be compared, or the networks saw different crops of one.
    """
    first, second = _images(before), _images(after)
    index = pc.index_in(second["image_id"], first["image_id"])
    new = second.filter(pc.is_valid(index))
    old = first.take(index.drop_null())
    both_done = pc.and_(new["done"], old["done"])
    # An unreadable image has no checksum, so a change cannot be detected; its status records that it was not read.
    differs = pc.fill_null(pc.not_equal(new["sha256"], old["sha256"]), False)
    same = pc.and_(both_done, pc.invert(differs))
    counts = MatchCounts(
        same=_count(same),
        changed=_count(pc.and_(both_done, differs)),
        gone=len(first) - len(new),
        new=len(second) - len(new),
        waiting=_count(pc.invert(both_done)),
        before=len(first),
        done_before=_count(first["done"]),
        after=len(second),
        done_after=_count(second["done"]),
    )
    if not counts.same:
        raise InputError(f"{before.url} and {after.url} have nothing to compare: {_no_match_reason(counts)}")
    new, old = new.filter(same), old.filter(same)
    _check_same_crop(old, new)
    pairs = new.rename_columns({"row": "row_after"}).append_column("row_before", old["row"])
    return pairs.select(["row_before", "row_after", "image_id", "sha256", "label", "class_name"]), counts


def _images(store: RunStore) -> pa.Table:
    """Return a run's images with the facts read so far and a column `done`."""
    images = store.images_with_facts().select(_COLUMNS)
    return images.append_column("done", pc.is_in(images["row"], value_set=store.image_facts()["row"].combine_chunks()))


def _check_same_crop(before: pa.Table, after: pa.Table) -> None:
    """Refuse maps of different crops of a photograph: their pixels do not correspond."""
    known = pc.and_(pc.is_valid(before["crop"]), pc.is_valid(after["crop"]))
    before, after = before.filter(known), after.filter(known)
    one, other = (pc.list_flatten(table["crop"]).to_numpy().astype(np.float32).reshape(-1, 4) for table in (before, after))
    if len(mismatches := np.flatnonzero((one != other).any(1))):
        boxes = " and then ".join("{:g} {:g} {:g} {:g}".format(*boxes[mismatches[0]]) for boxes in (one, other))
        image_id = after["image_id"][int(mismatches[0])].as_py()
        raise InputError(f"the networks saw different crops of {image_id}, {boxes}: run both with the same classifier.resize, crop and pad")


def _no_match_reason(counts: MatchCounts) -> str:
    if counts.waiting:
        return f"of {counts.waiting:,} images in both, none is done in both yet; {counts.changed:,} have changed"
    if counts.changed:
        return f"all {counts.changed:,} images in both have changed"
    return f"no image_id is in both, of {counts.before:,} and {counts.after:,}; give two runs on one dataset"


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)
