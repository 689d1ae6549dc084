"""docs/models.md: a Hugging Face ViT folder is explained by the page's three commands, from the folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
import zarr
from PIL import Image

from hdm_core import explain
from pipeline.classifiers.load import load_classifier
from pipeline.cli.main import main
from pipeline.config.load import load_section
from tests.docs.blocks import checked
from tests.docs.material import CLASSES
from tests.docs.shell import commands
from tests.support.huggingface import save_vit
from tests.support.plans import refused, save_picture

pytest.importorskip("transformers", reason="the extra transformers is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with the ViT, three photographs and the configuration that the page describes, for a run in one process."""
    monkeypatch.chdir(tmp_path)
    save_vit(tmp_path / "models/vit", CLASSES)
    for number, name in enumerate(("photo", "images/crow/0", "images/owl/1")):
        save_picture(tmp_path / f"{name}.jpg", 300, 260, seed=number)
    configuration = {
        "name": "vit",
        "dataset": {"kind": "folder", "root": "images"},
        "classifier": {"source": "transformers", "path": "models/vit"},
        "methods": ["gradient", "rise"],
        "rise": {"masks": 16},
        "target": "label",
        "compute": {"executor": "local", "batch_size": 4},
        "output": "runs",
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(configuration))
    return tmp_path


def hdm(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["hdm", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_three_commands_of_the_page(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (block for block in checked("bash", "docs/models.md") if "models/vit" in block.text)
    check, explained, run = (command[1:] for command in commands(block))
    # No method of the page is named: the check is of all of them, and explain takes a cheap one here.
    assert hdm([*check, "--json"], monkeypatch) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == len(CLASSES)
    assert {"hdm", "rise", "gradient"} <= set(facts["usable"])
    assert hdm([*explained, "--method", "gradient", "--json"], monkeypatch) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["class"] in CLASSES
    assert facts["status"] == "ok"
    with Image.open("heatmap.png") as picture:
        assert picture.size == (224, 224)
    assert hdm(run, monkeypatch) == 0
    (records,) = (folder / "runs/vit/records").glob("*.parquet")
    rows = pq.read_table(records).to_pylist()
    assert {(row["method"], row["status"]) for row in rows} == {("gradient", "ok"), ("rise", "ok")}
    assert sorted({row["target"] for row in rows}) == [0, 1], "the labels are found by the names of id2label"
    # The run's map is that of the network in Python.
    classifier = load_classifier(load_section("models/vit"), 0)
    with Image.open(folder / "images/crow/0.jpg") as photograph:
        expected = explain(classifier, classifier.prepare([photograph]), "gradient", targets=0).maps[0]
    found = np.asarray(zarr.open_group("runs/vit/maps.zarr", mode="r")["gradient"][0], dtype=np.float32)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-3)


def test_a_folder_is_known_by_its_files(folder: Path) -> None:
    assert load_section("models/vit").source == "transformers"
    (folder / "models/vit/card.json").write_text("{}")
    assert load_section("models/vit").source == "checkpoint"
    assert load_section("nowhere").source == "checkpoint"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{source: transformers}", "classifier: a classifier from transformers needs path, a local folder, or arch, a repository ORG/NAME"),
        ("{source: transformers, path: a, arch: b/c}", "needs path, a local folder, or arch, a repository ORG/NAME"),
        (
            "{source: transformers, path: a, weights: DEFAULT}",
            "classifier.weights does not apply to a classifier from transformers: remove it",
        ),
        ("{source: transformers, path: nowhere}", "classifier: nowhere cannot be loaded (nowhere is no folder"),
        ("{source: transformers, path: images}", "classifier: images cannot be loaded (images has no config.json"),
    ],
)
def test_what_does_not_fit_is_one_line(folder: Path, section: str, words: str) -> None:
    assert words in refused(lambda: load_classifier(load_section(section), 0))


def test_a_folder_without_a_processor_needs_the_keys_of_a_preprocessing(folder: Path) -> None:
    (folder / "models/vit/preprocessor_config.json").unlink()
    section = {"source": "transformers", "path": "models/vit"}
    assert "has no preprocessor_config.json" in refused(lambda: load_classifier(load_section(section), 0))
    keys = {"resize": [224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}
    preprocess = load_classifier(load_section({**section, **keys}), 0).preprocess
    assert preprocess is not None
    assert (preprocess.resize, preprocess.crop, preprocess.mean) == ((224, 224), None, (0.5, 0.5, 0.5))
