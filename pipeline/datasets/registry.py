"""Registry of dataset kinds.

It also chooses the kind for a configuration's section.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from hdm_core.registry import Registry
from pipeline.datasets.coco import COCO
from pipeline.datasets.cub import CUB
from pipeline.datasets.demo import DEMO
from pipeline.datasets.folder import FOLDER
from pipeline.datasets.huggingface import HUGGINGFACE
from pipeline.datasets.idrid import IDRID
from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.manifest import MANIFEST
from pipeline.datasets.palm import PALM
from pipeline.datasets.webdataset import WEBDATASET
from pipeline.errors import suggest
from pipeline.section import SectionError

# In the order of the documentation; installed packages add theirs by the entry points `hdm.datasets`.
DATASETS: Registry[DatasetKind[Any]] = Registry(
    "hdm.datasets", DatasetKind, (DEMO, CUB, PALM, IDRID, FOLDER, MANIFEST, COCO, WEBDATASET, HUGGINGFACE)
)


def parse_dataset(section: Mapping[str, Any]) -> DatasetConfig:
    """Validate a `dataset` section with the configuration class of its kind.

    A key of another kind is refused, unless its value is null or the default of that kind: configurations of stored runs have the keys
    of all kinds.

    Raises:
        ValueError: if the kind is missing or unknown, or a key belongs to another kind.
        SectionError: if the kind's configuration class refuses the section.
    """
    kind = section.get("kind")
    if kind is None:
        raise ValueError(f"dataset.kind is missing: write one of {', '.join(DATASETS)}")
    if not isinstance(kind, str) or kind not in DATASETS:
        raise ValueError(f"dataset.kind: unknown kind {kind!r}{suggest(str(kind), DATASETS, list_all=True)}")
    config: type[DatasetConfig] = DATASETS[kind].config
    values = dict(section)
    for key in [key for key in section if key not in config.model_fields]:
        defaults = [field.default for each in DATASETS.values() for name, field in each.config.model_fields.items() if name == key]
        if defaults and (section[key] is None or section[key] in defaults):
            del values[key]
        elif defaults:
            raise ValueError(f"dataset.{key} does not apply to a dataset of kind {kind!r}: remove it")
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise SectionError("dataset", config, error) from None


def _parse(value: Any) -> Any:
    return parse_dataset(value) if isinstance(value, Mapping) else value


# Type of a `dataset` key: validated by the kind's own class, and dumped with the keys of that class.
AnyDatasetConfig = Annotated[SerializeAsAny[DatasetConfig], BeforeValidator(_parse)]
