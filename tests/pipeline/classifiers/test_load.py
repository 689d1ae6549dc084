"""Loading of a configured checkpoint, and its errors of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from hdm_core import Preprocess
from hdm_core.sources.checkpoint import CARD, MODEL, Card, save_checkpoint
from pipeline.classifiers.load import load_classifier, preprocess_identity
from pipeline.config.schema import RunConfig
from pipeline.plan import make_plan
from tests.support.plans import configuration, refused, save_picture

PREPROCESS = Preprocess(resize=40, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation=InterpolationMode.BICUBIC)
NAMES = ("ant", "bee", "cat")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = torchvision.models.squeezenet1_1(num_classes=3)
    save_checkpoint(network, Card(arch="squeezenet1_1", classes=NAMES, preprocess=PREPROCESS), tmp_path / "insects")
    return tmp_path / "insects"


def checkpoint(folder: Path, **keys: Any) -> dict[str, Any]:
    return {"source": "checkpoint", "path": str(folder), **keys}


def test_a_checkpoint_is_loaded_whatever_the_seed(folder: Path) -> None:
    config = configuration(classifier=checkpoint(folder)).classifier
    one, two = (load_classifier(config, seed) for seed in (0, 1))
    assert one.weights_digest() == two.weights_digest()
    assert (one.name, one.class_names, one.preprocess) == ("squeezenet1_1 insects", NAMES, PREPROCESS)
    with one.frozen() as network, torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_the_configuration_may_choose_another_size_and_nothing_else_changes(folder: Path) -> None:
    config = configuration(classifier=checkpoint(folder, resize=72, crop=64)).classifier
    found = load_classifier(config, 0).preprocess
    assert found == Preprocess(72, 64, PREPROCESS.mean, PREPROCESS.std, PREPROCESS.interpolation)


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        ({"source": "checkpoint"}, "classifier.path is missing: a classifier from checkpoint needs it"),
        ({"source": "checkpoint", "path": ""}, "classifier.path is missing: a classifier from checkpoint needs it"),
        (
            {"source": "checkpoint", "path": "x", "arch": "resnet18"},
            "classifier.classes is missing: a state dict needs its classes, names or a number, beside arch",
        ),
        (
            {"source": "checkpoint", "path": "x", "weights": "DEFAULT"},
            "classifier.weights does not apply to a classifier from checkpoint: remove it",
        ),
        ({"arch": "resnet18", "path": "x"}, "classifier.path does not apply to a classifier from torchvision: remove it"),
        ({"source": "exported"}, "classifier.path is missing: a classifier from exported needs it"),
        ({"source": "import", "path": "x"}, "classifier.factory is missing: a classifier from import needs it"),
        ({"source": "timm", "arch": "x", "factory": "a:b"}, "classifier.factory does not apply to a classifier from timm: remove it"),
        (
            {"source": "timm", "arch": "x", "path": "y", "weights": "z"},
            "classifier.weights and classifier.path are two sources of weights: remove one",
        ),
        (
            {"source": "checkpoint", "path": "x", "arguments": {"transform_input": False}},
            "classifier.arguments is for the builder of a state dict's arch, and a trained folder has its own: remove it",
        ),
        (
            {"arch": "resnet18", "arguments": {"groups": 2}},
            "classifier.arguments does not apply to a classifier from torchvision: remove it",
        ),
        ({"source": "torchvision"}, "classifier.arch is missing: a classifier from torchvision needs it"),
    ],
    ids=str,
)
def test_a_section_that_does_not_fit_its_source(classifier: dict[str, str], message: str) -> None:
    assert refused(lambda: configuration(classifier=classifier)) == f"configuration: {message}"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    config = configuration(classifier=checkpoint(tmp_path / "nowhere")).classifier
    message = refused(lambda: load_classifier(config, 0))
    assert message.startswith(f"classifier: {tmp_path / 'nowhere'} cannot be loaded (")
    assert CARD in message


def test_a_file_instead_of_its_folder(folder: Path) -> None:
    config = configuration(classifier=checkpoint(folder / MODEL)).classifier
    assert f"{folder / MODEL} is a file of weights: give its arch and classes" in refused(lambda: load_classifier(config, 0))


def test_weights_that_are_damaged(folder: Path) -> None:
    (folder / MODEL).write_bytes(b"no tensors")
    config = configuration(classifier=checkpoint(folder)).classifier
    assert refused(lambda: load_classifier(config, 0)).startswith(f"classifier: {folder / MODEL} is damaged: ")


def test_a_card_of_another_number_of_classes(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "classes": ["ant", "bee"]}))
    config = configuration(classifier=checkpoint(folder)).classifier
    message = f"classifier: {folder / MODEL} does not hold the weights of squeezenet1_1 with 2 classes: "
    message += "classifier.1.weight is (3, 512, 1, 1) and should be (2, 512, 1, 1), classifier.1.bias is (3,) and should be (2,)"
    assert refused(lambda: load_classifier(config, 0)) == message


def test_the_builders_arguments_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = torchvision.models.googlenet(weights=None, num_classes=2, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    section = {"source": "checkpoint", "path": "~/net.pth", "arch": "googlenet", "classes": "~/names.txt"}
    tuned, plain = (
        load_classifier(configuration(classifier={**section, "arguments": arguments}).classifier, 0)
        for arguments in (None, {"transform_input": False})
    )
    assert (tuned.module.transform_input, plain.module.transform_input) == (True, False)
    assert tuned.class_names == ("ant", "bee")
    assert tuned.weights_digest() == plain.weights_digest()
    assert preprocess_identity(tuned) == {**preprocess_identity(plain), "transform_input": True}, "maps of one are none of the other"


@pytest.mark.parametrize("classes", ["names.txt", "twice.txt"])
def test_classes_that_cannot_be_read_are_one_line(folder: Path, tmp_path: Path, classes: str) -> None:
    (tmp_path / "names.txt").write_bytes("ant\nbee\ncat".encode("utf-16"))
    (tmp_path / "twice.txt").write_text("caf\u00e9\ncafe\u0301\ncat")
    config = configuration(classifier=checkpoint(folder, classes=str(tmp_path / classes))).classifier
    message = refused(lambda: load_classifier(config, 0))
    assert message.startswith("classifier.classes: ")
    assert ("save it as UTF-8" if classes == "names.txt" else "occurs twice") in message


class Extra(nn.Linear):
    """Network whose state has no digest."""

    def get_extra_state(self) -> object:
        return object()


def make_extra() -> nn.Module:
    return nn.Sequential(nn.Flatten(), Extra(3 * 32 * 32, 2))


def make_half() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)).half()


def make_double() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)).double()


@pytest.mark.parametrize("kind", ["half", "double"])
def test_a_network_whose_weights_are_not_float32_is_one_line(kind: str) -> None:
    config = configuration(classifier={"source": "import", "factory": f"{__name__}:make_{kind}"}).classifier
    message = refused(lambda: load_classifier(config, 0))
    assert message.endswith(f"has weights of torch.float{16 if kind == 'half' else 64}, and images are float32: convert it by float()")


def test_a_network_without_a_digest_is_one_line(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    section = {"source": "import", "factory": f"{__name__}:make_extra", "resize": 32, "crop": 32}
    config = configuration(classifier=section, methods=["gradient"], dataset={"kind": "folder", "root": str(tmp_path)})
    message = refused(lambda: make_plan(config))
    assert "the network's state '1._extra_state' has no digest: an object of type object has no fixed bytes" in message


# Outputs


class TwoHeads(nn.Module):
    """Network with two heads of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.species, self.age = nn.Flatten(), nn.Linear(3 * 32 * 32, 2), nn.Linear(3 * 32 * 32, 2)

    def forward(self, images: Tensor) -> dict[str, dict[str, Tensor]]:
        features = self.body(images)
        return {"heads": {"species": self.species(features), "age": self.age(features)}}


def heads_config(folder: Path, **keys: Any) -> RunConfig:
    save_picture(folder / "images/a.png")
    section = {"source": "import", "factory": f"{__name__}:TwoHeads", "resize": 32, "crop": 32, **keys}
    return configuration(classifier=section, methods=["gradient"], dataset={"kind": "folder", "root": str(folder / "images")})


def test_several_outputs_are_refused_before_a_run_with_the_key_to_write(tmp_path: Path) -> None:
    assert refused(lambda: make_plan(heads_config(tmp_path))).endswith(
        "it returned a dict with 2 such tensors, heads.species (1, 2), heads.age (1, 2): "
        "name the logits with output= (classifier.output in a configuration), such as heads.species"
    )
    message = refused(lambda: make_plan(heads_config(tmp_path, output="heads.colour")))
    assert message.endswith("the network returned a dict without an output 'heads.colour'; it has heads.species (1, 2), heads.age (1, 2)")


def test_the_named_output_is_the_classifiers_and_part_of_the_identity(tmp_path: Path) -> None:
    plans = {key: make_plan(heads_config(tmp_path, output=f"heads.{key}")) for key in ("species", "age")}
    assert {plan.preprocess_identity["output"] for plan in plans.values()} == {"heads.species", "heads.age"}
    assert len({plan.weights_digest for plan in plans.values()}) == 1
    assert len({plan.config.hash() for plan in plans.values()}) == 2
    classifier = load_classifier(heads_config(tmp_path, output="heads.age").classifier, 0)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(classifier.module(images), classifier.network(images)["heads"]["age"])
    assert "output" not in preprocess_identity(load_classifier(configuration().classifier, 0))
