"""Export of one method's maps to the HDF5 files that ViRelAy and CoRelAy read."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.load import load_config
from pipeline.datasets.images import UnreadableError
from pipeline.errors import InputError, suggest
from pipeline.export.new_folder import new_folder
from pipeline.export.rows import ExportedImage, exported_images
from pipeline.report.crop import fill_colour, read_crop
from pipeline.runs import RunStore
from pipeline.runs.maps import open_array, read_map

Maps = list[tuple[ExportedImage, dict[str, Any]]]


def export_virelay(store: RunStore, target: str, method: str | None = None) -> tuple[int, list[str]]:
    """Write the crops and the maps of one method to input.h5 and attribution.h5.

    Images whose map is missing, or whose file is gone or has changed, are left out.

    Args:
        target: a folder of this machine that does not exist.
        method: id of the method. None: the run's first.

    Returns:
        The number of images N, and the ids of those that were left out since their files cannot be read.

    Raises:
        InputError: if h5py is not installed, the target exists, or the run has no such method or no map of it.
        RunError: if the disk fills up.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ModuleNotFoundError:
        raise InputError("hdm export RUN virelay needs h5py: pip install 'hdm-pipeline[virelay]'") from None
    info = store.metadata()
    methods: list[str] = list(info["identity"]["methods"])
    method = methods[0] if method is None else method
    if method not in methods:
        raise InputError(f"--method {method}: the run has no such method{suggest(method, methods, list_all=True)}")
    found: Maps = [(image, image.mapped[method]) for image in exported_images(store) if method in image.mapped]
    if not found:
        raise InputError(f"{store.url}: no image has a map of {method}")
    with new_folder(target) as folder:
        with h5py.File(folder / "input.h5", "w") as inputs, h5py.File(folder / "attribution.h5", "w") as attributions:
            kept, missing = _write_arrays(store, found, method, inputs, attributions)
        if not kept:
            raise InputError(f"{store.url}: no photograph can be read any more")
        _write_names(folder, kept)
    return len(kept), missing


def _write_arrays(store: RunStore, found: Maps, method: str, inputs: Any, attributions: Any) -> tuple[Maps, list[str]]:
    """Write the arrays; return the images they have, and the ids of unreadable ones."""
    info, maps = store.metadata(), store.storage.zarr("maps.zarr")
    storage, fill = load_config(info["config"]).storage, fill_colour(info)
    height, width = open_array(maps, method).shape[-2:]
    data = inputs.create_dataset("data", (0, 3, height, width), "uint8", maxshape=(None, 3, height, width))
    attribution = attributions.create_dataset("attribution", (0, 1, height, width), "float32", maxshape=(None, 1, height, width))
    kept: Maps = []
    missing: list[str] = []
    for image, record in found:
        try:
            crop = np.asarray(read_crop(image.facts, (height, width), storage, fill)).transpose(2, 0, 1)
        except UnreadableError:
            missing.append(image.facts["image_id"])
            continue
        number = len(kept)
        for dataset, values in ((data, crop), (attribution, read_map(maps, method, image.facts["row"])[None])):
            dataset.resize(number + 1, axis=0)
            dataset[number] = values
        kept.append((image, record))
    labels = np.array([-1 if image.facts["label"] is None else image.facts["label"] for image, _ in kept], dtype=np.int64)
    classes = 1 + max([0, *labels.tolist(), *(record["target"] or 0 for _, record in kept)])
    prediction = np.zeros((len(kept), classes), dtype=np.float32)
    for number, (_, record) in enumerate(kept):
        if record["target"] is not None:
            prediction[number, record["target"]] = 1.0 if record["probability"] is None else record["probability"]
    inputs["label"] = labels
    attributions["label"], attributions["prediction"] = labels, prediction
    attributions["index"] = np.arange(len(kept), dtype=np.int64)
    return kept, missing


def _write_names(folder: Path, kept: Maps) -> None:
    """Write the names of classes, and which number is which image."""
    names = {record["target"]: record["target_name"] for _, record in kept if record["target"] is not None}
    names |= {image.facts["label"]: image.facts["class_name"] for image, _ in kept if image.facts["label"] is not None}
    content = [{"index": number, "name": names[number] or str(number)} for number in sorted(names)]
    (folder / "label_map.json").write_text(json.dumps(content), encoding="utf-8")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "row", "image_id"])
        writer.writerows([number, image.facts["row"], image.facts["image_id"]] for number, (image, _) in enumerate(kept))
