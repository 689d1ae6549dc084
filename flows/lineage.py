"""Datasets of a run as artifacts that OpenLineage's Prefect integration reads.

The integration (PyPI: openlineage-prefect) reads the table artifacts of a task run whose description is `ol-dataset_input` or
`ol-dataset_output`; the first row has the dataset's namespace as `database_uri` and its name as `table`.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from prefect.artifacts import create_table_artifact
from slugify import slugify

from pipeline.config.schema import RunConfig
from pipeline.datasets.sample import absolute
from pipeline.redaction import redact


def lineage_artifacts(config: RunConfig, url: str) -> None:
    """Create one artifact for the images that a run reads, and one for the run.

    They belong to the task that calls it. A dataset without a root, such as the demo's, is no input.

    Args:
        url: of the run.
    """
    if config.dataset.root is not None:
        _create(config.name, "input", str(config.dataset.root))
    _create(config.name, "output", url)


def dataset_name(url: str) -> tuple[str, str]:
    """Return namespace and name of a dataset, by OpenLineage's naming.

    Those of a file are `file` and its absolute path, those of an object `s3://BUCKET` and its key.

    Args:
        url: a path, which may be relative, or an fsspec URL.
    """
    whole = redact(absolute(url))
    if "://" not in whole:
        return "file", whole.rstrip("/") or "/"
    parts = urlsplit(whole)
    return f"{parts.scheme}://{parts.netloc}", parts.path.strip("/") or "/"


def _create(name: str, direction: Literal["input", "output"], url: str) -> None:
    namespace, dataset = dataset_name(url)
    row = {"database_uri": namespace, "table": dataset}
    create_table_artifact(table=[row], key=slugify(f"{name} {direction}"), description=f"ol-dataset_{direction}")
