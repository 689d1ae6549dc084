"""Columns of a run that the viewer filters, sorts and counts by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from hdm_core import METRICS
from pipeline.config.load import load_config
from pipeline.datasets.manifest import ManifestConfig, further_columns
from pipeline.errors import InputError
from pipeline.runs import RunStore
from pipeline.runs.measured import installed_metrics, measured_settings
from pipeline.tables.aggregate import TITLES

# Columns of the records that are read beside the metrics.
RECORD_COLUMNS = (
    *("row", "image_id", "method", "rank", "status", "error", "target", "target_name", "label", "probability", "region", "seconds"),
    *("no_contrast", "metrics_no_contrast"),
)
IMAGE_COLUMNS = ("class_name", "split")
OTHER_COLUMNS = ("other_probability", "probability_change")  # of a comparison

# Facets: parameter of the URL -> column, title.
FACETS = {
    "class": ("class_name", "Label"),
    "predicted": ("target_name", "Explained class"),
    "correct": ("correct", "Class equals label"),
    "flip": ("flip", "Class changed"),
    "status": ("status", "Status"),
    "split": ("split", "Split"),
    "region": ("region", "Ground truth"),
}

_MAX_EXTRA = 20  # further columns of a manifest that are read


@dataclass(frozen=True)
class Columns:
    """Columns of one run.

    Attributes:
        metrics: ids of the measured metrics, in the registry's order.
        extra: further columns of the manifest, by image_id; None without any.
        compared: whether a second run is beside it.
        note: one sentence about columns that could not be read, or empty.
    """

    metrics: tuple[str, ...]
    extra: pa.Table | None = None
    compared: bool = False
    note: str = ""
    titles: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_run(cls, store: RunStore, info: Mapping[str, Any], compared: bool) -> Columns:
        """Read which columns a run has."""
        settings = measured_settings(store.storage, info)
        named = set() if settings is None else installed_metrics(settings)
        metrics = tuple(metric for metric in METRICS if metric in named)
        extra, note = _further(info)
        titles = {"row": "Dataset order", "image_id": "Name", "probability": "Probability", "seconds": "Seconds"}
        titles |= {"other_probability": "Other probability", "probability_change": "Probability change"}
        titles |= {metric: TITLES[metric] for metric in metrics}
        return cls(metrics, extra, compared, note, titles)

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Names of the manifest's further columns."""
        return () if self.extra is None else tuple(name for name in self.extra.column_names if name != "image_id")

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns with numbers, of which histograms are drawn."""
        schema = None if self.extra is None else self.extra.schema
        numeric = [name for name in self.extra_names if schema is not None and is_number(schema.field(name).type)]
        return ("probability", *(OTHER_COLUMNS if self.compared else ()), *self.metrics, *numeric)

    @property
    def sortable(self) -> tuple[str, ...]:
        """Columns by which the images are sorted."""
        return ("row", *self.numbers, "seconds", "image_id", *(name for name in self.extra_names if name not in self.numbers))

    @property
    def facets(self) -> dict[str, tuple[str, str]]:
        """Facets of the run: parameter of the URL -> column, title."""
        own = {name: facet for name, facet in FACETS.items() if name != "flip" or self.compared}
        return own | {f"is_{name}": (name, name) for name in self.extra_names if name not in self.numbers}

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that an expression may name."""
        other = (*OTHER_COLUMNS, "flip", "other_target_name") if self.compared else ()
        return (*RECORD_COLUMNS, *self.metrics, *IMAGE_COLUMNS, "correct", *self.extra_names, *other)

    def title(self, column: str) -> str:
        """Return the name of a column for people."""
        return self.titles.get(column, column)


def is_number(type_: pa.DataType) -> bool:
    """Return whether Arrow's type is a number."""
    return bool(pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_decimal(type_))


def _further(info: Mapping[str, Any]) -> tuple[pa.Table | None, str]:
    """Return the further columns of a manifest, with a note where it cannot be read."""
    if info["config"]["dataset"].get("kind") != "manifest":
        return None, ""
    try:
        config = load_config(info["config"])
        if not isinstance(config.dataset, ManifestConfig):
            return None, ""
        table = further_columns(config.dataset, config.storage)
    except InputError as error:
        return None, f"The manifest's further columns are not shown: {error}"
    taken = {
        name.lower() for name in (*RECORD_COLUMNS, *METRICS, *IMAGE_COLUMNS, *OTHER_COLUMNS, "correct", "flip", "other_target_name", "path")
    }
    kept = [name for name in table.column_names if name == "image_id" or name.lower() not in taken]
    return (None, "") if len(kept) < 2 else (table.select(kept[: _MAX_EXTRA + 1]), "")
