"""Parts of a training: split, images, network and metrics."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from hdm_core import Classifier, Preprocess
from hdm_core.sources.checkpoint import Card, build, save_checkpoint
from pipeline.config.load import load_config
from pipeline.datasets import Sample
from pipeline.datasets.images import read_image
from pipeline.training.config import Augmentation, NetworkConfig, Recipe, TrainingStage
from pipeline.training.dataset import ImageCache, ImageDataset, reader_processes
from pipeline.training.loop import _warmup_cosine
from pipeline.training.metrics import classification_metrics
from pipeline.training.network import head_name, make_network, parameter_groups, train_mode, unfreeze
from pipeline.training.prerequisite import training_before
from pipeline.training.split import TEST, TRAIN, VALIDATION, Example, Splits, split
from pipeline.training.store import TrainingStore
from tests.support.plans import refused, save_picture
from tests.support.trainings import load_training

RECIPE = Recipe(stages=(TrainingStage(epochs=1, learning_rate=1e-3),))


def samples(count: int = 40) -> list[Sample]:
    """Return three times as many images of class 1 as of class 0; every fifth is of the official test split."""
    return [
        Sample(f"{i}", f"{i}.png", label=int(i % 4 > 0), class_name="ab"[i % 4 > 0], split="train" if i % 5 else "test")
        for i in range(count)
    ]


def of_role(splits: Splits, role: str) -> set[str]:
    return {item.sample.image_id for item in splits.items if item.role == role}


def split_samples(**held_out: Any) -> Splits:
    return split(samples(), load_training(Path("images"), **held_out))


def test_shares_are_drawn_of_every_class_by_itself() -> None:
    found = split_samples(test=0.2, validation=0.25)
    for label, (train, validation, test) in enumerate(((6, 2, 2), (18, 6, 6))):
        counts = [sum(item.target == label and item.role == role for item in found.items) for role in (TRAIN, VALIDATION, TEST)]
        assert counts == [train, validation, test]
    assert len(found.items) == 40


def test_shares_follow_from_the_seed() -> None:
    assert split_samples(test=0.2) == split_samples(test=0.2)
    assert of_role(split_samples(test=0.2), TEST) != of_role(split_samples(test=0.2, seed=1), TEST)
    assert of_role(split_samples(test=0.2, validation=None), TEST) == of_role(split_samples(test=0.2, validation=0.5), TEST)


def test_a_split_of_the_dataset_is_held_back_whole() -> None:
    found = split_samples(test="test", validation=0.25)
    assert of_role(found, TEST) == {str(i) for i in range(0, 40, 5)}
    assert len(of_role(found, VALIDATION)) == 8


def test_images_without_a_label_are_counted() -> None:
    found = split([*samples(), Sample("no", "no.png")], load_training(Path("images")))
    assert (len(found.items), found.unlabelled) == (40, 1)


def test_labels_become_the_outputs_numbers() -> None:
    shifted = [Sample(str(i), f"{i}.png", label=7 + 2 * (i % 2)) for i in range(8)]
    found = split(shifted, load_training(Path("images"), test=None, validation=None))
    assert found.classes == ("7", "9")
    assert [item.target for item in found.items] == [0, 1] * 4


@pytest.mark.parametrize(
    ("given", "held_out", "message"),
    [
        (samples(), {"test": "tset"}, "test: no labelled images in the split 'tset'; the dataset has test, train"),
        (samples()[::4], {}, "only the class a"),
        ([Sample("1", "1.png")], {}, "no labels"),
        (samples(3), {"test": None, "validation": 0.6}, "the class a has no images to train on"),
    ],
    ids=["no such split", "one class", "no label", "nothing to train on"],
)
def test_a_dataset_that_cannot_be_trained_on(given: list[Sample], held_out: dict[str, Any], message: str) -> None:
    assert message in refused(lambda: split(given, load_training(Path("images"), **held_out)))


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    return [Example(Sample(f"{i}", str(save_picture(tmp_path / f"{i}.png", 60 + i, 50, i))), TRAIN, i % 2) for i in range(3)]


@pytest.mark.parametrize("preprocess", [Preprocess(resize=40, crop=32), Preprocess((40, 24), None), Preprocess(40, (24, 56))])
@pytest.mark.parametrize("max_bytes", [0, 12_000, 10**9], ids=["nothing cached", "one cached", "all cached"])
def test_without_augmentation_a_network_sees_what_an_explanation_shows_it(
    examples: list[Example], max_bytes: float, preprocess: Preprocess
) -> None:
    cache = ImageCache(examples, preprocess, {}, max_bytes)
    assert cache.read() == examples
    dataset = ImageDataset(cache, examples)
    for index, item in enumerate(examples):
        image, target = dataset[index]
        assert torch.equal(image, preprocess(read_image(item.sample, {}).image))
        assert target == item.target


@pytest.mark.parametrize("max_bytes", [0, 12_000, 10**9], ids=["nothing cached", "one cached", "all cached"])
def test_images_that_are_shared_are_the_same_in_another_process(examples: list[Example], max_bytes: float) -> None:
    """Those that are cached are mapped, and not sent."""
    cache = ImageCache(examples, Preprocess(resize=40, crop=32), {}, max_bytes)
    cache.read()
    before = [cache.get(item) for item in examples]
    cache.share()
    sent = pickle.dumps(ImageDataset(cache, examples, Augmentation(vertical_flip=True, rotation=30, colour=0.4, erasing=0.5)))
    assert len(sent) < 8000
    other = pickle.loads(sent)._cache
    for item, image in zip(examples, before, strict=True):
        assert torch.equal(cache.get(item), image)
        assert torch.equal(other.get(item), image)


@pytest.mark.slow
def test_processes_that_load_batches_are_not_forked(examples: list[Example]) -> None:
    cache = ImageCache(examples, Preprocess(resize=40, crop=32), {}, 10**9)
    cache.read()
    cache.share()
    dataset = ImageDataset(cache, examples)
    (images, targets), *_ = DataLoader(dataset, 3, **reader_processes(2))
    assert torch.equal(images, torch.stack([dataset[index][0] for index in range(3)]))
    assert targets.tolist() == [item.target for item in examples]
    assert reader_processes(2)["multiprocessing_context"].get_start_method() == "forkserver"


def test_augmentation_follows_from_torchs_seed(examples: list[Example]) -> None:
    augmentation = Augmentation(vertical_flip=True, rotation=30, colour=0.4, erasing=0.5)
    cache = ImageCache(examples, Preprocess(resize=40, crop=32), {}, 10**9)
    views = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        views.append(torch.stack([ImageDataset(cache, examples, augmentation)[index][0] for index in range(3)]))
    assert views[0].shape == (3, 3, 32, 32)
    oblong = ImageCache(examples, Preprocess((40, 24), None), {}, 10**9)
    assert ImageDataset(oblong, examples, augmentation)[0][0].shape == (3, 40, 24)
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


ARCHS = ("resnet50", "mobilenet_v2", "squeezenet1_1", "densenet121", "efficientnet_b0", "vgg11", "convnext_tiny", "vit_b_16", "swin_t")


@pytest.mark.parametrize("arch", ARCHS)
def test_the_head_is_what_the_classes_come_from(arch: str) -> None:
    with torch.device("meta"):
        network = build(arch, 7)
    head = network.get_submodule(head_name(network))
    assert next(iter(head.parameters())).shape[0] == 7


def test_only_the_stages_part_learns() -> None:
    network = build("mobilenet_v2", 3)
    for part, learns in (("head", {"classifier"}), (("features.18", "features.1"), {"classifier", "features.18", "features.1"})):
        unfreeze(network, TrainingStage(epochs=1, train=part, learning_rate=1e-3))
        found = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert {".".join(name.split(".")[: 1 + name.startswith("features")]) for name in found} == learns
        train_mode(network, RECIPE)
        norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
        assert {name for name, module in norms.items() if module.training} == {name for name in norms if f"{name}.weight" in found}
        train_mode(network, RECIPE.model_copy(update={"statistics": "pretrained"}))
        assert not any(module.training for module in norms.values())
        grouped = [
            parameter for group in parameter_groups(network, TrainingStage(epochs=1, learning_rate=1), 0.1) for parameter in group["params"]
        ]
        assert len(grouped) == len(found)
        assert {id(parameter) for parameter in grouped} == {id(p) for p in network.parameters() if p.requires_grad}


def test_groups_have_their_rates_and_decays() -> None:
    network = build("mobilenet_v2", 3)
    groups = parameter_groups(network, TrainingStage(epochs=1, learning_rate=0.1, head_learning_rate=0.5), 0.01)
    found = {(group["lr"], group["weight_decay"], len(group["params"])) for group in groups}
    assert found == {(0.1, 0.01, 52), (0.1, 0.0, 104), (0.5, 0.01, 1), (0.5, 0.0, 1)}


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_weights_from_a_file(tmp_path: Path, name: str) -> None:
    from safetensors.torch import save_file

    before = build("squeezenet1_1", 5)
    torch.save(before.state_dict(), tmp_path / name) if name.endswith("pth") else save_file(before.state_dict(), tmp_path / name)
    start = make_network(NetworkConfig(arch="squeezenet1_1", weights=str(tmp_path / name), crop=64), 3, seed=0)
    after = start.network
    assert torch.equal(before.state_dict()["features.0.weight"], after.state_dict()["features.0.weight"])
    assert after.state_dict()["classifier.1.weight"].shape[0] == 3
    assert (start.preprocess.crop, start.arguments) == (64, {})
    message = refused(lambda: make_network(NetworkConfig(arch="resnet18", weights=str(tmp_path / name)), 3, seed=0))
    assert "not the weights of resnet18" in message
    assert "lacks it" in message


def test_inception_is_trained_as_torchvision_builds_it_and_the_card_says_so(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    before = build("googlenet", 5, {"init_weights": False})
    save_file({f"model.{key}": value for key, value in before.state_dict().items()}, tmp_path / "weights.safetensors")
    start = make_network(NetworkConfig(arch="googlenet", weights=str(tmp_path / "weights.safetensors")), 3, seed=0)
    assert start.network.transform_input is True
    assert start.arguments == {"transform_input": True, "init_weights": False}
    assert torch.equal(start.network.conv1.conv.weight, before.conv1.conv.weight)
    save_checkpoint(start.network, Card(arch="googlenet", classes=("a", "b", "c"), arguments=start.arguments), tmp_path / "done")
    assert Classifier.from_checkpoint(tmp_path / "done").module.transform_input is True


def test_random_weights_have_the_builders_defaults() -> None:
    assert make_network(NetworkConfig(arch="mobilenet_v2"), 3, seed=0).arguments == {}


def test_a_transformer_is_trained_at_the_size_of_its_weights(tmp_path: Path) -> None:
    torch.save(build("vit_b_32", 2, {"image_size": 64}).state_dict(), tmp_path / "weights.pth")
    start = make_network(NetworkConfig(arch="vit_b_32", weights=str(tmp_path / "weights.pth")), 3, seed=0)
    assert (start.preprocess.resize, start.preprocess.crop, start.arguments) == (73, 64, {"image_size": 64})
    message = refused(lambda: make_network(NetworkConfig(arch="vit_b_32", weights=str(tmp_path / "weights.pth"), crop=96), 3, seed=0))
    assert message == "classifier.crop 96: vit_b_32 takes images of 64 x 64 only; leave crop out"


def test_a_training_of_an_earlier_version_with_other_arguments_does_not_resume(tmp_path: Path) -> None:
    config = load_training(Path("images"), output=str(tmp_path))
    store = TrainingStore.at(config)
    store.create(config, {})
    store.create(config, {})
    message = refused(lambda: store.create(config, {"transform_input": True}))
    assert "was started by a version that built mobilenet_v2 with other arguments than {'transform_input': True}" in message
    save_checkpoint(build("squeezenet1_1", 2), Card(arch="squeezenet1_1", classes=("a", "b")), Path(store.url))
    store.create(config, {"transform_input": True})  # it is finished: its card has what it was built with


def test_two_folders_of_one_name_are_no_two_classes() -> None:
    samples = [Sample(f"{n}", f"{n}.png", label=n % 2, class_name=("caf\u00e9", "cafe\u0301")[n % 2]) for n in range(8)]
    message = refused(lambda: split(samples, load_training(Path("images"), test=None, validation=None)))
    assert message.startswith("the dataset's class 'cafe\u0301' occurs twice, with its accents composed and decomposed")


def test_the_heads_weights_follow_from_the_seed() -> None:
    heads = [make_network(NetworkConfig(arch="squeezenet1_1"), 3, seed).network.state_dict()["classifier.1.weight"] for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_learning_rate_goes_up_and_down() -> None:
    rates = [_warmup_cosine(step, 20, 0.2) for step in range(21)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[12] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[20] == pytest.approx(0)
    assert _warmup_cosine(0, 1, 0.1) == 1.0


def test_scores_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.5], [0.0, 1.0]])
    found = classification_metrics(logits, torch.tensor([0, 0, 1, 1]))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    # Margins of class 1: -2 and 1 for class 0, 0.5 and 1 for class 1. Of four pairs two are won, one is lost, one is a tie.
    assert found["auc"] == 0.625
    assert "auc" not in classification_metrics(torch.zeros(2, 3), torch.tensor([0, 1]))


# Trainings that precede a run


def test_a_run_trains_its_classifier_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "classifiers" / "mine"
    changes = {"dataset.root": "CUB_200_2011", "classifier.train": "cub-mobilenet", "classifier.path": str(folder)}
    training = training_before(load_config("cub-full", changes))
    assert training is not None
    assert (training.output, training.name) == (str(folder.parent), "mine")
    assert (training.dataset.root, training.dataset.kind, training.classifier.arch) == ("CUB_200_2011", "cub", "mobilenet_v2")
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = training_before(load_config("cub-full", {**changes, "classifier.path": "~/classifiers/mine"}))
    assert at_home is not None
    assert at_home.output == str(folder.parent)
    folder.mkdir(parents=True)
    (folder / "card.json").write_text("{}")
    assert training_before(load_config("cub-full", {**changes, "classifier.path": "~/classifiers/mine"})) is None
    assert training_before(load_config("cub-full", changes)) is None, "it is trained"
    assert training_before(load_config("demo")) is None


def test_a_training_that_is_not_there_is_a_mistake() -> None:
    message = refused(lambda: training_before(load_config("cub-full", {"dataset.root": "CUB_200_2011", "classifier.train": "bird"})))
    assert message.startswith("bird: neither a preset (cub, cub-mobilenet")
