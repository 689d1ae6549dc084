"""Groups of explanations: clusters of a class's maps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA

from pipeline.audit.energy import GRID, Energies, Floats
from pipeline.audit.finding import Finding
from pipeline.audit.settings import AuditSettings
from pipeline.audit.spatial import place_name
from pipeline.tables.wilcoxon import holm

CLUSTERS = pa.schema(
    [
        ("row", pa.int64()),
        ("class_name", pa.string()),
        ("cluster", pa.int32()),  # -1: in no group
        ("x", pa.float32()),  # first two principal components of the class's maps
        ("y", pa.float32()),
    ],
    metadata={"hdm.schema_version": "1"},
)

_LEAST_SHARE = 0.1  # of a class's images, that a group has at least
_COMPONENTS = 10
_EXAMPLES = 8
_DOMINANT = 0.5  # of the largest mean energy, that a cell of a group's place has


@dataclass(frozen=True)
class Clusters:
    """Clusters of the maps of every class.

    Attributes:
        labels: (N,), the cluster of each map among those of its class; -1 for none.
        points: (N, 2).
    """

    labels: NDArray[np.int64]
    points: Floats


def cluster_maps(energies: Energies, settings: AuditSettings) -> Clusters:
    """Cluster the maps of each class by the places of their energy.

    HDBSCAN on principal components.

    The square root of the energies makes Euclidean distances those of Hellinger.
    """
    labels = np.full(len(energies.rows), -1)
    points = np.zeros((len(energies.rows), 2))
    for name in energies.sizes:
        mask = energies.of(name)
        count = int(mask.sum())
        if count < 2 * settings.min_images:
            continue
        reduced = PCA(min(_COMPONENTS, count, GRID**2), random_state=settings.seed).fit_transform(np.sqrt(energies.cells[mask]))
        points[mask] = reduced[:, :2]
        least = max(settings.min_images, round(_LEAST_SHARE * count))
        labels[mask] = HDBSCAN(min_cluster_size=least, copy=True).fit_predict(reduced)
    return Clusters(labels, points)


def group_findings(
    energies: Energies, clusters: Clusters, images: Mapping[int, Mapping[str, Any]], method: str, settings: AuditSettings
) -> list[Finding]:
    """Return a finding for every group whose images share a column.

    They share it more than the rest of the class does.

    Columns are those of images.parquet (split, true class), the folder, the letters that the file's name begins with, and the manifest's
    own columns, such as site or year. p is that of Fisher's exact test of the column's most
    common value, corrected by Holm over all groups and columns.

    Args:
        images: row -> its columns.
    """
    tests: list[tuple[float, str, int, str, str, NDArray[np.int64], int, float]] = []
    for name in energies.sizes:
        of_class = energies.of(name)
        for cluster in sorted(set(clusters.labels[of_class]) - {-1}):
            inside = of_class & (clusters.labels == cluster)
            if inside.sum() == of_class.sum():
                continue
            rows, rest = energies.rows[inside], energies.rows[of_class & ~inside]
            for column, (value, hits) in _common(rows, images).items():
                other = sum(_columns(images[row]).get(column) == value for row in rest.tolist())
                table = [[hits, len(rows) - hits], [other, len(rest) - other]]
                p = float(stats.fisher_exact(table, alternative="greater").pvalue)
                tests.append((p, name, int(cluster), column, value, rows, hits, other / len(rest)))
    findings = []
    for p, (_, name, cluster, column, value, rows, hits, other_share) in zip(holm([test[0] for test in tests]), tests, strict=True):
        if p > settings.alpha:
            continue
        inside = energies.of(name) & (clusters.labels == cluster)
        share = float(inside.sum() / energies.of(name).sum())
        mean = energies.cells[inside].mean(0).reshape(GRID, GRID)
        place = place_name(mean >= _DOMINANT * mean.max())
        have = f"{hits / len(rows):.0%} of them have {column} {value}, {other_share:.0%} of the rest"
        text = f"{share:.0%} of {name} look at the {place}; {have}"
        listed = tuple(rows.tolist())
        findings.append(
            Finding(name, "group", method, len(rows), text, place=place, p=p, share=share, examples=listed[:_EXAMPLES], rows=listed)
        )
    return findings


def clusters_table(energies: Energies, clusters: Clusters) -> pa.Table:
    """Return the rows of audit/clusters.parquet."""
    columns = [energies.rows, energies.classes.tolist(), clusters.labels, *clusters.points.T]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, CLUSTERS, strict=True)], schema=CLUSTERS)


def _common(rows: Sequence[int] | NDArray[np.int64], images: Mapping[int, Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
    """Return column -> its most common value among images, with its count."""
    counters: dict[str, Counter[str]] = {}
    for row in rows:
        for column, value in _columns(images[int(row)]).items():
            counters.setdefault(column, Counter())[value] += 1
    return {column: counter.most_common(1)[0] for column, counter in counters.items()}


def _columns(image: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of an image that a group may share."""
    path = PurePosixPath(image["path"])
    prefix = re.match(r"[^\W\d_]*", path.name)
    values = {"split": image["split"], "true class": image["class_name"], "folder": path.parent.name}
    values["file name prefix"] = prefix and prefix.group()
    values |= image.get("manifest") or {}
    return {column: str(value) for column, value in values.items() if value not in (None, "")}
