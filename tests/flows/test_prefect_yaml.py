"""prefect.yaml is valid: Prefect itself ignores a key that it does not know."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow

from pipeline.config.load import presets
from pipeline.training.run import train_presets
from tests.support.paths import ROOT

FILE: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = FILE["deployments"]

KNOWN = {"name", "description", "entrypoint", "parameters", "work_pool", "concurrency_limit", "schedules", "tags", "triggers", "version"}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: f"{Path(deployment['entrypoint']).stem}/{deployment['name']}")
def test_a_deployment_names_a_flow_and_parameters_that_it_has(deployment: dict[str, Any]) -> None:
    assert deployment.keys() <= KNOWN
    path, _, name = deployment["entrypoint"].partition(":")
    assert (ROOT / path).is_file()
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    assert isinstance(flow, Flow)
    assert deployment["parameters"].keys() <= inspect.signature(flow.fn).parameters.keys()
    if (known := {"hdm": presets, "hdm-reexplain": presets, "hdm-train": train_presets}.get(flow.name)) is not None:
        assert deployment["parameters"]["config"] in known()
    needed = {} if known else {"run": "runs/demo", "limits": "", "page": ""}
    wanted = inspect.signature(flow.fn).parameters.keys()
    flow.validate_parameters({name: text for name, text in needed.items() if name in wanted} | deployment["parameters"])
    assert deployment["work_pool"]["name"] == "hdm"


def test_the_deployments_that_users_know_are_there() -> None:
    assert {"demo", "cub-full", "pm-full"} <= {deployment["name"] for deployment in DEPLOYMENTS}


def test_every_training_preset_has_a_deployment() -> None:
    assert train_presets().keys() <= {deployment["name"] for deployment in DEPLOYMENTS}
