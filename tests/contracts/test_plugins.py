"""Entries from an installed package are found like built-in ones; one that is broken is one line and harms nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.plugin import install_plugin


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install_plugin(tmp_path_factory.mktemp("plugin"))


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_method_from_outside_is_listed_and_explains(environment: dict[str, str]) -> None:
    code = """
import json, torch
from hdm_core import METHODS, Classifier, explain
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
found = explain(Classifier.from_module(network), torch.rand(2, 3, 8, 8), "centre")
print(json.dumps({"methods": list(METHODS), "status": found.status, "passes": found.passes}))
"""
    ended = python(code, environment)
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert facts["methods"][0] == "hdm"
    assert facts["methods"][-1] == "centre"
    assert facts["status"] == ["ok", "ok"]


def test_a_broken_plugin_is_one_line_and_harms_nothing(environment: dict[str, str]) -> None:
    ended = python("from hdm_core import METHODS; print(len(METHODS))", environment)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert lines == ["plugin hdm_test_plugin.broken:METHOD of hdm.methods was skipped: ImportError: libsaliency.so.1 is not installed"]


def test_without_plugins_there_are_only_our_own() -> None:
    from hdm_core import METHODS

    assert len(METHODS) == 15
