"""Which images of two runs are the same: those with one image_id and one content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.runs import RunStore

_SHOWN = ["image_id", "row", "sha256", "label", "class_name", "crop"]


@dataclass(frozen=True)
class Counts:
    """What became of the images of two runs.

    Attributes:
        same: in both runs with the same content, and done in both: these are compared.
        changed: the same image_id with another content.
        gone, new: only in the run before, only in the run after.
        waiting: in both, but not done yet in at least one of them.
        done_before, done_after: images that each run has done, of `before` and `after`.
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


def match(before: RunStore, after: RunStore) -> tuple[pa.Table, Counts]:
    """The images to compare in the order of the run after, `row_before, row_after, image_id, sha256, label, class_name`, and all counts.

    Raises:
        InputError: if there is none, or the networks saw different parts of one.
    """
    first, second = _images(before), _images(after)
    place = pc.index_in(second["image_id"], first["image_id"])
    found = second.filter(pc.is_valid(place))
    others = first.take(place.drop_null())
    both_done = pc.and_(found["done"], others["done"])
    # An image that could not be read has no checksum: whether it is another one is not known, and its status says the rest.
    differs = pc.fill_null(pc.not_equal(found["sha256"], others["sha256"]), False)
    same = pc.and_(both_done, pc.invert(differs))
    counts = Counts(
        same=_count(same),
        changed=_count(pc.and_(both_done, differs)),
        gone=len(first) - len(found),
        new=len(second) - len(found),
        waiting=_count(pc.invert(both_done)),
        before=len(first),
        done_before=_count(first["done"]),
        after=len(second),
        done_after=_count(second["done"]),
    )
    if not counts.same:
        raise InputError(f"{before.url} and {after.url} have nothing to compare: {_why(counts)}")
    found, others = found.filter(same), others.filter(same)
    _same_crop(others, found)
    pairs = found.rename_columns({"row": "row_after"}).append_column("row_before", others["row"])
    return pairs.select(["row_before", "row_after", "image_id", "sha256", "label", "class_name"]), counts


def _images(store: RunStore) -> pa.Table:
    """A run's images with what reading them told so far, and whether their shard is done."""
    images = store.images_with_facts().select(_SHOWN)
    return images.append_column("done", pc.is_in(images["row"], value_set=store.image_facts()["row"].combine_chunks()))


def _same_crop(before: pa.Table, after: pa.Table) -> None:
    """Refuses maps that lie on different parts of a photograph: their pixels are not the same places."""
    known = pc.and_(pc.is_valid(before["crop"]), pc.is_valid(after["crop"]))
    before, after = before.filter(known), after.filter(known)
    one, other = (np.array(table["crop"].to_pylist(), np.float32).reshape(-1, 4) for table in (before, after))
    if len(wrong := np.flatnonzero((one != other).any(1))):
        boxes = " and then ".join("{:g} {:g} {:g} {:g}".format(*boxes[wrong[0]]) for boxes in (one, other))
        image_id = after["image_id"][int(wrong[0])].as_py()
        raise InputError(f"the networks saw different parts of {image_id}, {boxes}: run both with the same classifier.resize and crop")


def _why(counts: Counts) -> str:
    if counts.waiting:
        return f"of {counts.waiting:,} images in both, none is done in both yet; {counts.changed:,} have changed"
    if counts.changed:
        return f"all {counts.changed:,} images in both have changed"
    return f"no image_id is in both, of {counts.before:,} and {counts.after:,}; give two runs on one dataset"


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)
