"""Dataset kinds and classifier sources of an installed package work like built-in ones; broken ones are one line each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.classifiers.sources import CLASSIFIER_SOURCES
from pipeline.datasets import DATASETS
from tests.support.paths import ROOT
from tests.support.plugin import install_plugin

SETUP = """
import json, sys
from pathlib import Path
from pipeline.classifiers.sources import CLASSIFIER_SOURCES
from pipeline.config.load import load_config
from pipeline.datasets import DATASETS, parse_dataset
from pipeline.datasets.testing import check_dataset
from pipeline.errors import InputError
from pipeline.plan import make_plan
root = Path(sys.argv[1])
run = {"name": "colours", "dataset": {"kind": "squares", "root": str(root), "side": 20, "split": "test"},
       "classifier": {"source": "mean_colour", "arguments": {"gain": 2}}, "methods": ["grad_cam"], "target": "label", "output": str(root)}
"""
SKIPPED = "plugin hdm_test_plugin.broken:{name} of {group} was skipped: ImportError: libsaliency.so.1 is not installed"


pytestmark = pytest.mark.slow  # the plugin is installed for real, and every test is a process of its own


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install_plugin(tmp_path_factory.mktemp("plugin"))


def python(code: str, environment: dict[str, str], root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SETUP + code, str(root)]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended


def test_a_kind_from_outside_keeps_the_contract_of_every_kind(environment: dict[str, str], tmp_path: Path) -> None:
    code = 'check_dataset("squares", lambda folder: parse_dataset({"kind": "squares", "root": str(folder)})); print(list(DATASETS))'
    assert python(code, environment, tmp_path).stdout.strip() == str([*DATASETS, "squares"])


def test_a_run_of_both_is_planned_and_its_stored_configuration_loads_again(environment: dict[str, str], tmp_path: Path) -> None:
    code = """
config = load_config(run)
plan = make_plan(config)
again = load_config(json.loads(config.model_dump_json()))
print(json.dumps({"images": len(plan.samples), "passes": plan.passes, "same": again == config and again.hash() == config.hash(),
                  "side": config.identity()["dataset"]["side"], "other": load_config(run, {"dataset.side": 24}).hash() != config.hash(),
                  "sources": list(CLASSIFIER_SOURCES)}))
"""
    facts = json.loads(python(code, environment, tmp_path).stdout)
    assert facts.pop("sources") == [*CLASSIFIER_SOURCES, "mean_colour"]
    assert facts == {"images": 3, "passes": 3, "same": True, "side": 20, "other": True}


def test_mistakes_in_their_sections_are_one_line_like_all_others(environment: dict[str, str], tmp_path: Path) -> None:
    code = """
for changes in ({"dataset.sied": 3}, {"dataset.side": 3}, {"dataset.kind": "folder"}, {"dataset.kind": "squars"},
                {"classifier.arch": "resnet18"}, {"classifier.source": "mean_color"}):
    try:
        load_config(run, {"dataset.split": None} | changes)
    except InputError as error:
        print(error)
"""
    kinds, sources = ", ".join([*DATASETS, "squares"]), ", ".join([*CLASSIFIER_SOURCES, "mean_colour"])
    assert python(code, environment, tmp_path).stdout.splitlines() == [
        "configuration: dataset.sied: unknown key; did you mean side?",
        "configuration: dataset.side: input should be greater than or equal to 8, not 3",
        "configuration: dataset.side does not apply to a dataset of kind 'folder': remove it",
        f"configuration: dataset.kind: unknown kind 'squars'; known are {kinds}; did you mean squares?",
        "configuration: classifier.arch does not apply to a classifier from mean_colour: remove it",
        f"configuration: classifier.source: unknown source 'mean_color'; known are {sources}; did you mean mean_colour?",
    ]


def test_hdm_explain_takes_a_classifier_from_outside(environment: dict[str, str], tmp_path: Path) -> None:
    python("make_plan(load_config(run))", environment, tmp_path)  # which writes the squares
    options = ["--method", "grad_cam", "--classifier", "{source: mean_colour}", "--out", str(tmp_path / "map.png"), "--json"]
    code = f"import sys; from pipeline.cli.main import main; sys.argv = {['hdm', 'explain', str(tmp_path / '0.png'), *options]!r}; main()"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["class"] == "red"
    assert (tmp_path / "map.png").is_file()


def test_a_broken_plugin_is_one_line_and_harms_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    ended = python("print(len(DATASETS), len(CLASSIFIER_SOURCES))", environment, tmp_path)
    assert ended.stdout.split() == [str(len(DATASETS) + 1), str(len(CLASSIFIER_SOURCES) + 1)]
    assert [line for line in ended.stderr.splitlines() if line.strip()] == [
        SKIPPED.format(name="DATASET", group="hdm.datasets"),
        SKIPPED.format(name="SOURCE", group="hdm.classifiers"),
    ]


def test_without_plugins_there_are_only_our_own() -> None:
    assert list(DATASETS) == ["demo", "cub", "palm", "idrid", "folder", "manifest", "coco", "webdataset", "huggingface"]
    assert list(CLASSIFIER_SOURCES) == ["torchvision", "checkpoint", "exported", "import", "timm", "transformers"]
