"""Schema of sanity.parquet: one row per method, test and stage.

It is a public format that other programs read.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

SANITY = pa.schema(
    [
        ("method", pa.string()),
        # cascading, independent, classes, determinism, repeatability, reproducibility, noise, jpeg, localisation; chance for references
        ("test", pa.string()),
        ("stage", pa.string()),  # what was changed; empty for a test that was left out
        ("measure", pa.string()),  # spearman | equal | proportion
        ("mean", pa.float64()),  # over the images; null without a value
        ("low", pa.float64()),  # ends of Student's 95% interval; null with fewer than 3 values
        ("high", pa.float64()),
        ("n", pa.int32()),  # images with a value
        ("n_flat", pa.int32()),  # images whose map is constant
        ("n_failed", pa.int32()),  # images for which the method diverged or raised
        ("n_changed", pa.int32()),  # images whose predicted class changed, which the test is not about
        ("ssim", pa.float64()),  # mean structural similarity; null if maps are smaller than its window of 11 x 11
        ("limit", pa.float64()),  # null for none
        ("verdict", pa.string()),  # pass | fail | unclear | left out | measured | control
        ("reason", pa.string()),
    ],
    metadata={"hdm.sanity_schema_version": str(SCHEMA_VERSION)},
)
