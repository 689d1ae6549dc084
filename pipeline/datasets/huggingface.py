"""Dataset kind `huggingface`: images with metadata, or Parquet files of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from pipeline.datasets.huggingface_metadata import METADATA_NAMES, read_metadata
from pipeline.datasets.huggingface_parquet import read_parquet
from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.listing import Listing, ListingNotes
from pipeline.datasets.root import Root
from pipeline.datasets.sample import number_classes
from pipeline.errors import InputError


class HuggingFaceConfig(DatasetConfig):
    """Configuration of a Hugging Face dataset on a disk or an object store."""

    root_description = "a folder with metadata.csv, metadata.jsonl, metadata.parquet or Parquet files with images"

    kind: Literal["huggingface"] = Field(
        description="A folder of images with metadata.csv, metadata.jsonl or metadata.parquet, or Parquet files with the images' bytes."
    )
    label_column: str = Field("label", description="Column with the class: a name, a number, or a ClassLabel, whose names are used.")
    image_column: str = Field("image", description="Column of the Parquet files with the image: bytes, or a struct of bytes and path.")


def read_huggingface(config: HuggingFaceConfig, storage: Mapping[str, Any]) -> Listing:
    """List the rows of the metadata or Parquet files, in the order of the files.

    Raises:
        InputError: if the folder has neither, or a table cannot be read or lacks a column.
    """
    root, notes = Root.at(str(config.root), storage, config.root_description), ListingNotes()
    files = root.find(notes=notes)
    tables = [relative for relative in files if relative.rpartition("/")[2] in METADATA_NAMES]
    if tables:
        return Listing(number_classes(read_metadata(root, tables, files, config.label_column, notes)), notes)
    parquet = [relative for relative in files if relative.endswith(".parquet")]
    for relative in files:
        if not relative.endswith(".parquet"):
            notes.leave_out("that are no Parquet files", relative)
    if not parquet:
        raise InputError(f"{root.url}: has no Parquet files, and none of {', '.join(METADATA_NAMES)}; a folder of images is kind folder")
    samples = [sample for file in parquet for sample in read_parquet(root, file, config.image_column, config.label_column)]
    return Listing(number_classes(samples), notes)


HUGGINGFACE = DatasetKind("huggingface", HuggingFaceConfig, read_huggingface)
