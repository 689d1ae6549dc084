"""Images of a run: images.parquet, and the facts that reading adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.sample import Sample, as_text
from pipeline.runs.records import FILE_METADATA

IMAGES = pa.schema(
    [
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("truth_sha256", pa.string()),  # of the ground truth, a box or the files of masks; null where there is none
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("split", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("crop", pa.list_(pa.float32(), 4)),  # left, top, right, bottom in pixels of the original image
    ],
    metadata=FILE_METADATA,
)

# Columns known only after reading an image. Each shard writes them as a part; they enter images.parquet when the run is aggregated.
FACTS = pa.schema([IMAGES.field(name) for name in ("row", "sha256", "truth_sha256", "width", "height", "crop")], metadata=FILE_METADATA)


def image_columns(samples: Sequence[Sample]) -> dict[str, Sequence[Any]]:
    """Return samples as columns of images.parquet, without the facts of FACTS."""
    columns: dict[str, Sequence[Any]] = {"row": range(len(samples)), "path": [as_text(sample.path) for sample in samples]}
    return columns | {name: [getattr(sample, name) for sample in samples] for name in ("image_id", "label", "class_name", "split")}


def with_facts(images: pa.Table, facts: pa.Table) -> pa.Table:
    """Fill the facts into images.parquet; rows that were not read stay null."""
    indices = pc.index_in(images["row"], facts["row"])
    for name in FACTS.names:
        if name != "row":
            images = images.set_column(images.column_names.index(name), IMAGES.field(name), facts[name].take(indices))
    return images.cast(IMAGES)
