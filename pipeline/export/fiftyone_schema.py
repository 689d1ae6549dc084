"""Description of a FiftyOne data set: metadata.json of the format FiftyOneDataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_FIELDS = "fiftyone.core.fields"
_LABELS = "fiftyone.core.labels"
# Of the format. FiftyOne migrates older data sets when it reads them, and refuses those that are newer than itself.
_VERSION = "1.0.0"


def dataset_document(name: str, methods: Sequence[str], metrics: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Return the content of metadata.json.

    Args:
        name: of the run.
        methods: names of the Heatmap fields.
        metrics: columns of the records, which each method has as `{method}_{metric}`.
        classes: names of the true classes.
    """
    fields = [
        _field("id", "ObjectIdField", db_field="_id"),
        _field("filepath", "StringField"),
        _field("tags", "ListField", subfield="StringField"),
        _field("metadata", "EmbeddedDocumentField", document="fiftyone.core.metadata.ImageMetadata"),
        _field("created_at", "DateTimeField"),
        _field("last_modified_at", "DateTimeField"),
        _field("row", "IntField"),
        _field("image_id", "StringField"),
        _label("ground_truth", "Classification"),
        _label("explained", "Classification"),
    ]
    for method in methods:
        fields += [_label(method, "Heatmap"), _field(f"{method}_status", "StringField")]
        fields += [_field(f"{method}_{metric}", "FloatField") for metric in metrics]
    return {
        "name": name,
        "version": _VERSION,
        "media_type": "image",
        "tags": [],
        "info": {"source": "hdm", "run": name},
        "sample_fields": fields,
        "frame_fields": [],
        "classes": {"ground_truth": list(classes)},
        "default_classes": [],
        "mask_targets": {},
        "default_mask_targets": {},
        "saved_views": [],
        "workspaces": [],
        "annotation_runs": {},
        "brain_methods": {},
        "evaluations": {},
        "runs": {},
    }


def _field(
    name: str,
    kind: str,
    *,
    document: str | None = None,
    subfield: str | None = None,
    fields: Sequence[dict[str, Any]] = (),
    db_field: str | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "ftype": f"{_FIELDS}.{kind}",
        "embedded_doc_type": document,
        "subfield": subfield and f"{_FIELDS}.{subfield}",
        "fields": list(fields),
        "db_field": db_field or name,
        "description": None,
        "info": None,
    }


def _label(name: str, kind: str) -> dict[str, Any]:
    own = {
        "Classification": [_field("label", "StringField"), _field("confidence", "FloatField"), _field("logits", "VectorField")],
        "Heatmap": [_field("map", "ArrayField"), _field("map_path", "StringField"), _field("range", "ListField", subfield="FloatField")],
    }
    common = [_field("id", "ObjectIdField", db_field="_id"), _field("tags", "ListField", subfield="StringField")]
    return _field(name, "EmbeddedDocumentField", document=f"{_LABELS}.{kind}", fields=[*common, *own[kind]])
