"""A kind of dataset: the base of its configuration, and its entry in the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipeline.datasets.sample import Sample
from pipeline.section import Count, Section, Seed

# Every stored configuration has these keys, whatever its kind: they are part of the hash of all runs and trainings.
_ALWAYS_DUMPED: Mapping[str, Any] = {"part": None, "referable": False, "lesions": None}


class DatasetConfig(Section):
    """Images to explain: the keys that all kinds of datasets share.

    Each kind derives its own class, narrows `kind` to its id and adds its own keys. The text of an error in a validator begins
    with the key that it is about: "part is missing: ...".

    Attributes:
        root_description: the thing that `root` must name, for the error of a missing root; None if the kind needs no root.
        has_splits: whether the kind knows splits of its own, so that `split` is valid without `splits`.
    """

    root_description: ClassVar[str | None] = "the dataset's folder"
    has_splits: ClassVar[bool] = True

    kind: str = Field(description="Kind of the dataset; each kind has its own layout and may have keys of its own.")
    root: str | None = Field(None, description="Folder of the dataset, or file of the manifest: a local path or a URL.")
    split: str | None = Field(None, description="Read only the images of this split, such as train or test. Default: all images.")
    splits: str | None = Field(
        None,
        description="CSV with the columns image_id and split, such as a trained classifier's split.csv, that replaces the dataset's own "
        "splits; a local path or a URL. Default: the dataset's own splits.",
    )
    per_class: Count | None = Field(None, description="Number of images per class, drawn at random with `seed`. Default: all images.")
    limit: Count | None = Field(
        None, description="Maximum number of images, drawn at random with `seed` after `per_class`. Default: no maximum."
    )
    seed: Seed = Field(0, description="Seed of the random draws of `per_class` and `limit`.")

    @model_validator(mode="after")
    def _check_root(self) -> DatasetConfig:
        if self.root_description is not None and not self.root:
            raise ValueError(f"root is missing: a dataset of kind {self.kind!r} needs {self.root_description}; set dataset.root")
        return self

    @model_validator(mode="after")
    def _check_split(self) -> DatasetConfig:
        if self.split is not None and self.splits is None and not self.has_splits:
            raise ValueError(f"split does not apply to a dataset of kind {self.kind!r}: remove it")
        return self

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return values if info.exclude_defaults else {**_ALWAYS_DUMPED, **values}


C = TypeVar("C", bound=DatasetConfig)


@dataclass(frozen=True)
class DatasetKind(Generic[C]):
    """An entry in the registry of dataset kinds.

    Attributes:
        id: the value of `dataset.kind`.
        config: configuration class of the kind.
        read: lists the samples of all splits in a fixed order, given the configuration and the fsspec options of a root that is a
            URL; raises InputError. A `Listing` also counts what it left out. `list_samples` then selects `split`, `per_class` and `limit`.
    """

    id: str
    config: type[C]
    read: Callable[[C, Mapping[str, Any]], list[Sample]]
