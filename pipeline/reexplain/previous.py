"""Index of an earlier run by checksums, which outlast the renaming of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hdm_core import METHODS
from pipeline.config.diff import differences
from pipeline.config.schema import EVIDENCE_METHOD
from pipeline.datasets.checksums import SampleChecksums
from pipeline.runs import RunStore
from pipeline.runs.measured import as_configured, read_state

# Deterministic statuses, safe to reuse. `failed` may have been the machine's fault.
_DETERMINISTIC = pa.array(["ok", "skipped", "flat", "nan", "unreadable"])


def result_identity(info: dict[str, Any]) -> dict[str, Any]:
    """Return what determines a run's results beside images and methods."""
    identity = info["identity"]
    network = {name: identity["classifier"].get(name) for name in ("source", "arch", "factory", "arguments")}
    return {
        "classifier": {**network, "weights": info["model_fingerprint"], "interface": info.get("interface")},
        "metrics": identity["metrics"],
        "target": identity["target"],
        "seed": identity["seed"],
        "precision": identity["precision"],
        "cuda_graphs": identity.get("cuda_graphs", True),
        "hdm": info["versions"]["hdm-pipeline"],
    }


def _as_measured(store: RunStore) -> dict[str, Any]:
    """Return run.json with the settings of the numbers, also of later ones."""
    info, state = store.metadata(), read_state(store.storage)
    if state is None:
        return info
    metrics = as_configured(state.settings).identity() if state.finished else {"finished": False}
    return {**info, "identity": {**info["identity"], "metrics": metrics}}


@dataclass(frozen=True)
class PreviousRun:
    """Images of an earlier run, and their statuses.

    Attributes:
        rows: image_id -> row.
        rows_by_checksums: checksums -> row, of the images that were read.
        images: row -> the columns sha256, truth_sha256, label and class_name of images.parquet.
        reusable: method -> (images,) bool, True where the explanation can be reused.
        unreadable: (images,) bool, True where the file could not be read.
    """

    store: RunStore
    info: dict[str, Any]
    rows: dict[str, int]
    rows_by_checksums: dict[SampleChecksums, int]
    images: list[dict[str, Any]]
    reusable: dict[str, NDArray[np.bool_]]
    unreadable: NDArray[np.bool_]

    @classmethod
    def read(cls, store: RunStore) -> PreviousRun:
        """Read a run's tables, but none of its maps."""
        table = store.images_with_facts()
        columns = ["image_id", "sha256", "truth_sha256", "label", "class_name"]
        images = table.select(columns).to_pylist()
        by_checksums = {SampleChecksums(image["sha256"], image["truth_sha256"]): row for row, image in enumerate(images) if image["sha256"]}
        info, records = _as_measured(store), store.records(columns=["row", "method", "status"])
        reusable = {}
        for method in info["identity"]["methods"]:
            of_method = records.filter(pc.equal(records["method"], method))
            reusable[method] = np.zeros(len(images), bool)
            reusable[method][of_method["row"].to_numpy()] = True
            failed = of_method.filter(pc.invert(pc.is_in(of_method["status"], value_set=_DETERMINISTIC)))
            reusable[method][failed["row"].to_numpy()] = False
        unreadable = np.zeros(len(images), bool)
        unreadable[records.filter(pc.equal(records["status"], "unreadable"))["row"].to_numpy()] = True
        rows = {image["image_id"]: row for row, image in enumerate(images)}
        return cls(store, info, rows, by_checksums, images, reusable, unreadable)

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.info["name"])

    def incompatibilities(self, info: dict[str, Any]) -> list[str]:
        """List why a run with this run.json can reuse nothing, such as other weights."""
        old, new = result_identity(self.info), result_identity(info)
        if new["metrics"] is None:  # the maps alone are taken, however they were measured
            old["metrics"] = None
        if old["classifier"]["weights"] != new["classifier"]["weights"]:
            return ["the classifier has other weights"]
        return differences(old, new)

    def method_incompatibilities(self, method: str, info: dict[str, Any]) -> list[str]:
        """List why a run with this run.json cannot reuse the maps of one method."""
        old, new = self.info["identity"]["methods"].get(method), info["identity"]["methods"][method]
        if old is None:
            return [f"{method} is a new method"]
        found = differences(old, new, f"{method}.")
        if method == EVIDENCE_METHOD:
            before, after = ({"evidence": each["identity"].get("evidence")} for each in (self.info, info))
            found += differences(before, after)
        if METHODS[method].signed and info["identity"].get("signed") and not self.info["identity"].get("signed"):
            found += differences({"signed": False}, {"signed": True})
        return found
