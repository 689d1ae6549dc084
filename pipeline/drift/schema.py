"""drift.parquet: a row an (image, method) that both runs hold. Other people's programs read it, as they read the rest of a run."""

from __future__ import annotations

import pyarrow as pa

from hdm_core import METRICS

SCHEMA_VERSION = 1

DRIFT = pa.schema(
    [
        ("row_before", pa.int64()),  # of the image in the run before
        ("row_after", pa.int64()),
        ("image_id", pa.string()),
        ("sha256", pa.string()),
        ("class_name", pa.string()),  # the label's name or number; without labels the class that was explained before
        ("method", pa.string()),
        ("status", pa.string()),  # the worse of both: ok | flat | nan | unreadable | failed. Only maps that are ok in both are compared
        ("target_before", pa.int32()),  # of rank 0
        ("target_after", pa.int32()),
        ("target_name_before", pa.string()),
        ("target_name_after", pa.string()),
        ("flipped", pa.bool_()),  # whether another class is explained
        ("probability_before", pa.float32()),
        ("probability_after", pa.float32()),
        ("probability_change", pa.float32()),  # a change is after minus before
        ("spearman", pa.float32()),  # in [-1, 1], of the pixels of both maps
        ("ssim", pa.float32()),  # in [-1, 1]; null where the map is smaller than its window of 11 x 11
        ("overlap", pa.float32()),  # in [0, 1], of the most salient 20% of the pixels, intersection over union
        ("drift", pa.float32()),  # in [0, 1], what images are ranked by: the mean of 1 - overlap and (1 - spearman) / 2
        *[(f"{metric}_change", pa.float32()) for metric in METRICS],
    ],
    metadata={"hdm.drift_schema_version": str(SCHEMA_VERSION)},
)
