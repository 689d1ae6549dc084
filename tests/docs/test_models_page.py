"""docs/models.md: every section loads the classifier that the page promises; test_blocks.py runs the blocks of Python."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torchvision
import yaml
from PIL import Image

from hdm_core import Preprocess
from pipeline.classifiers.load import load_classifier
from pipeline.classifiers.sources import CLASSIFIER_SOURCES
from pipeline.cli.explain import explain_image
from pipeline.cli.main import main
from pipeline.config.load import load_section
from pipeline.plan import make_plan
from tests.docs.material import CLASSES, check_classifier, make_models, missing
from tests.support.paths import ROOT
from tests.support.plans import configuration, refused

BLOCKS = re.findall(r"```(yaml|python)\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL)
YAML = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
CLASSIFIERS = [block["classifier"] for block in YAML if "classifier" in block]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
BROKEN = "def fails():\n    raise RuntimeError('no\\nweights')\n\ndef text():\n    return 'a network'\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the files that the page names."""
    folder = tmp_path_factory.mktemp("page")
    make_models(folder)
    with (folder / "my_models.py").open("a") as file:
        file.write(BROKEN)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "my_models", raising=False)


def test_the_page_has_every_source() -> None:
    assert {section["source"] for section in CLASSIFIERS} == set(CLASSIFIER_SOURCES)
    assert len(CLASSIFIERS) == len(PYTHON)


@pytest.mark.parametrize("section", CLASSIFIERS, ids=[f"{place} {section['source']}" for place, section in enumerate(CLASSIFIERS)])
def test_a_section_is_loaded(section: dict[str, Any]) -> None:
    if package := missing(section["source"]):
        pytest.skip(f"the extra {package} is not installed")
    config = configuration(classifier=section).classifier
    assert config == load_section(yaml.safe_dump(section))
    classifier = load_classifier(config, 0)
    check_classifier(classifier, None if section["source"] == "torchvision" else CLASSES)
    if "mean" in section:
        assert classifier.preprocess == Preprocess(232, 224, (0.5,) * 3, (0.5,) * 3, torchvision.transforms.InterpolationMode.BICUBIC)


def test_the_targets_are_those_of_a_configuration() -> None:
    targets = [block["target"] for block in YAML if "target" in block]
    several = [{"top": 3}, {"top": 3, "above": 0.5}, {"labels": 4}]
    assert targets == ["predicted", "label", 2, *several, {"contrast": ["cat", "dog"]}, "runner_up", "wrong"]
    assert [configuration(target=target).ranks for target in targets] == [1, 1, 1, 3, 3, 4, 1, 1, 2]


# The command


@pytest.mark.parametrize("classifier", ["models/birds", "{source: exported, path: model.pt2, classes: birds.txt}"])
def test_explain_takes_any_classifier(classifier: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["hdm", "explain", "photo.png", "--classifier", classifier, "--method", "gradient", "--out", "map.png", "--json"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    facts = yaml.safe_load(capsys.readouterr().out)
    assert facts["class"] in CLASSES
    assert facts["status"] == "ok"
    with Image.open("map.png") as picture:
        assert picture.size == (224, 224)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{source: exported", "classifier: no valid YAML"),
        ("{source: exported}", "classifier.path is missing"),
        ("{source: timm, arch: x, colour: red}", "classifier: colour: unknown key"),
        ("nowhere/birds", "classifier: nowhere/birds cannot be loaded"),
        ("{source: exported, path: nowhere.pt2}", "classifier: nowhere.pt2 cannot be loaded"),
        ("{source: import, factory: make}", "factory: string should match pattern"),
        (
            "{source: import, factory: 'nothing:make'}",
            "classifier: nothing:make cannot be imported (No module named 'nothing'); every worker",
        ),
        ("{source: import, factory: 'my_models:nothing'}", "classifier: my_models:nothing cannot be imported"),
        ("{source: import, factory: 'my_models:fails'}", "classifier: my_models:fails failed (RuntimeError: no weights)"),
        ("{source: import, factory: 'my_models:make'}", "classifier: my_models:make failed (TypeError: "),
        ("{source: import, factory: 'my_models:text'}", "classifier: my_models:text gave a str, and should give a torch.nn.Module"),
        (
            "{source: checkpoint, path: birds.pth, arch: resnet18, classes: 3}",
            "does not hold the weights of resnet18 with 3 classes: missing",
        ),
        ("{source: checkpoint, path: birds.pth, arch: mobilenet_v2, classes: no.txt}", "classifier.classes: [Errno 2]"),
    ],
)
def test_a_classifier_that_cannot_be_had_is_refused_in_one_line(section: str, words: str) -> None:
    assert words in refused(lambda: load_classifier(load_section(section), 0))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            "{source: exported, path: model.pt2, crop: 192}",
            "model.pt2: the network does not take images of 192 x 192 (Guard failed: x.size()[2] == 224)",
        ),
        ("{source: exported, path: model.pt2, classes: [crow, owl]}", "model.pt2 answers with 3 classes, and 2 are named"),
        ("{source: exported, path: model.pt2, classes: 4}", "model.pt2 answers with 3 classes, and 4 are named"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_one_line(section: str, words: str) -> None:
    loaded = load_section(section)
    assert words in refused(lambda: explain_image("photo.png", "map.png", loaded, method="gradient", preset=None, target=None))


def test_methods_that_need_layers_are_refused_before_a_run_starts(place: Path) -> None:
    section = {"source": "exported", "path": "model.pt2"}
    dataset = {"kind": "folder", "root": str(place)}
    config = configuration(dataset=dataset, classifier=section, methods=["gradient", "grad_cam", "hdm", "full_grad"])
    assert refused(lambda: make_plan(config)).startswith("classifier: model.pt2: grad_cam, full_grad: an exported program has no layers")


def test_what_an_imported_function_draws_comes_from_the_seed() -> None:
    config = load_section("{source: import, factory: 'my_models:make', arguments: {classes: 3}}")
    one, again, other = (load_classifier(config, seed).weights_digest() for seed in (1, 1, 2))
    assert one == again != other
