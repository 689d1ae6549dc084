"""An earlier run, ready to be looked up: which images it explained how, by what they are and not by what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config.diff import differences
from pipeline.datasets.checksums import SampleChecksums
from pipeline.runs import RunStore

# How an explanation may have ended that the same image, classifier and settings would end in again. A failure may have been the machine's.
_DETERMINISTIC = pa.array(["ok", "flat", "nan", "unreadable"])


def result_identity(info: dict[str, Any]) -> dict[str, Any]:
    """What beside the image and the method determines an explanation, out of a run.json."""
    identity = info["identity"]
    network = {name: identity["classifier"].get(name) for name in ("source", "arch", "factory", "arguments")}
    return {
        "classifier": {**network, "weights": info["model_fingerprint"], "interface": info.get("interface")},
        "metrics": identity["metrics"],
        "target": identity["target"],
        "seed": identity["seed"],
        "precision": identity["precision"],
        "hdm": info["versions"]["hdm-pipeline"],
    }


@dataclass(frozen=True)
class PreviousRun:
    """A run's images and what became of them.

    Attributes:
        rows: image_id -> row.
        found: contents -> row, of the images that were read.
        images: row -> the columns sha256, truth_sha256, label and class_name of images.parquet.
        lasting: method -> which rows' explanations can be taken.
        unreadable: rows whose file could not even be had.
    """

    store: RunStore
    info: dict[str, Any]
    rows: dict[str, int]
    found: dict[SampleChecksums, int]
    images: list[dict[str, Any]]
    reusable: dict[str, NDArray[np.bool_]]
    unreadable: NDArray[np.bool_]

    @classmethod
    def read(cls, store: RunStore) -> PreviousRun:
        """Reads a run's tables; its maps stay where they are."""
        table = store.images_with_facts()
        columns = ["image_id", "sha256", "truth_sha256", "label", "class_name"]
        images = table.select(columns).to_pylist()
        found = {SampleChecksums(image["sha256"], image["truth_sha256"]): row for row, image in enumerate(images) if image["sha256"]}
        info, records = store.metadata(), store.records()
        lasting = {}
        for method in info["identity"]["methods"]:
            mine = records.filter(pc.equal(records["method"], method))
            lasting[method] = np.zeros(len(images), bool)
            lasting[method][mine["row"].to_numpy()] = True
            bad = mine.filter(pc.invert(pc.is_in(mine["status"], value_set=_DETERMINISTIC)))
            lasting[method][bad["row"].to_numpy()] = False
        unreadable = np.zeros(len(images), bool)
        unreadable[records.filter(pc.equal(records["status"], "unreadable"))["row"].to_numpy()] = True
        return cls(store, info, {image["image_id"]: row for row, image in enumerate(images)}, found, images, lasting, unreadable)

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.info["name"])

    def incompatibilities(self, info: dict[str, Any]) -> list[str]:
        """What keeps a run with this run.json from taking anything, such as other weights."""
        old, new = result_identity(self.info), result_identity(info)
        if old["classifier"]["weights"] != new["classifier"]["weights"]:
            return ["the classifier has other weights"]
        return differences(old, new)

    def method_incompatibilities(self, method: str, info: dict[str, Any]) -> list[str]:
        """What keeps a run with this run.json from taking the maps of one method."""
        old, new = self.info["identity"]["methods"].get(method), info["identity"]["methods"][method]
        return [f"{method} is a new method"] if old is None else differences(old, new, f"{method}.")
