"""Schema of drift.parquet: one row per (image, method) that both runs hold.

Like the other files of a run it is a public format that other programs read.
"""

from __future__ import annotations

import pyarrow as pa

from hdm_core import METRICS

SCHEMA_VERSION = 1

DRIFT = pa.schema(
    [
        ("row_before", pa.int64()),  # row of the image in the run before
        ("row_after", pa.int64()),
        ("image_id", pa.string()),
        ("sha256", pa.string()),
        ("class_name", pa.string()),  # name or number of the label; without labels the explained class before
        ("method", pa.string()),
        ("status", pa.string()),  # the worse of both: ok | flat | nan | unreadable | failed; only maps that are ok in both are compared
        ("target_before", pa.int32()),  # class of rank 0
        ("target_after", pa.int32()),
        ("target_name_before", pa.string()),
        ("target_name_after", pa.string()),
        ("flipped", pa.bool_()),  # true if the explained class changed
        ("probability_before", pa.float32()),
        ("probability_after", pa.float32()),
        ("probability_change", pa.float32()),  # every change is after minus before
        ("spearman", pa.float32()),  # in [-1, 1], over the pixels of both maps
        ("ssim", pa.float32()),  # in [-1, 1]; null if the map is smaller than the window of 11 x 11
        ("overlap", pa.float32()),  # in [0, 1], intersection over union of the most salient 20% of the pixels
        ("drift", pa.float32()),  # in [0, 1], the mean of 1 - overlap and (1 - spearman) / 2; images are ranked by it
        *[(f"{metric}_change", pa.float32()) for metric in METRICS],
    ],
    metadata={"hdm.drift_schema_version": str(SCHEMA_VERSION)},
)
