"""Metadata of a run, run.json, and the check that a plan continues it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import torch

from hdm_core.device import default_batch, default_precision
from pipeline.config.diff import differences
from pipeline.config.schema import ComputeConfig
from pipeline.errors import InputError
from pipeline.plan import Plan
from pipeline.runs.records import SCHEMA_VERSION


def run_json(plan: Plan) -> dict[str, Any]:
    """Return the content of run.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": plan.config.name,
        "config": plan.config.model_dump(mode="json"),
        "identity": plan.config.identity(),
        "auto": _automatic(plan.config.compute),
        "config_hash": plan.config.hash(),
        "model_fingerprint": plan.weights_digest,
        "interface": plan.preprocess_identity,
        "dataset_listing": plan.dataset_digest(),
        "images": len(plan.samples),
        "shards": len(plan.shards),
        "passes_per_image": plan.passes_per_image,
        **({} if plan.config.evidence is None else {"evidence_passes_per_image": plan.evidence_passes}),
        "checks": [finding.as_dict() for finding in plan.findings],
        "seed": plan.config.seed,
        "versions": {name: version(name) for name in ("hdm-pipeline", "torch", "torchvision", "ray", "zarr", "pyarrow")},
    }


def _automatic(compute: ComputeConfig) -> dict[str, dict[str, Any]]:
    """Return the value of each key that is left to the device, by kind of device."""
    choices: dict[str, Callable[[torch.device], Any]] = {"batch_size": default_batch, "precision": default_precision}
    devices = [torch.device(kind) for kind in ("cpu", "cuda")]
    return {key: {device.type: choose(device) for device in devices} for key, choose in choices.items() if getattr(compute, key) == "auto"}


def check_same_plan(url: str, stored: Mapping[str, Any], plan: Plan, remedy: str = "choose another name for this run") -> None:
    """Refuse a plan that does not continue a stored run.

    Args:
        url: the run's, for the message.
        stored: the run's metadata.
        remedy: the end of the message.

    Raises:
        InputError: if configuration, schema version, classifier or dataset differ.
    """
    planned = run_json(plan)
    if old := stored.get("renamed_keys"):
        raise InputError(
            f"{url} was made by an earlier version of hdm, whose configuration has {', '.join(old)}: "
            f"it can be read, but not continued; {remedy}"
        )
    if stored.get("schema_version") == SCHEMA_VERSION and stored["config_hash"] != planned["config_hash"]:
        differing = ", ".join(differences(stored["identity"], planned["identity"]))
        raise InputError(
            f"{url} was started with configuration {stored['config_hash'][:12]}, this is {planned['config_hash'][:12]}; "
            f"they differ in {differing}; {remedy}"
        )
    if stored.get("auto") not in (None, planned["auto"]):
        raise InputError(f"{url} was started by a version of hdm in which auto stood for {stored['auto']}, now {planned['auto']}; {remedy}")
    for key, what in (("schema_version", "schema version"), ("model_fingerprint", "classifier"), ("dataset_listing", "dataset")):
        if stored.get(key) != planned[key]:
            raise InputError(f"{url} was started with another {what} ({stored.get(key)}, now {planned[key]}); {remedy}")
