"""Plans: shards, cost, identity, and refused inputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hdm_core import Classifier, Preprocess
from pipeline.classifiers.load import load_classifier
from pipeline.config.schema import RunConfig
from pipeline.datasets import Masks
from pipeline.plan import Plan, make_plan
from tests.support.plans import configuration, plan_of, refused
from tests.support.tiny_networks import smooth


def config_of(folder: Path, images: int = 3, changes: dict[str, Any] | None = None, **keys: Any) -> RunConfig:
    """Return a configuration over files that are images by name only: a plan does not open them."""
    for i in range(images):
        (folder / f"{i}.png").touch()
    return configuration({"dataset.root": str(folder), **(changes or {})}, **keys)


# Shards


@pytest.mark.parametrize(
    ("images", "size", "bounds"), [(1, 1, [(0, 1)]), (4, 2, [(0, 2), (2, 4)]), (5, 2, [(0, 2), (2, 4), (4, 5)]), (3, 256, [(0, 3)])]
)
def test_shards_cover_every_row_once(tmp_path: Path, images: int, size: int, bounds: list[tuple[int, int]]) -> None:
    plan = make_plan(config_of(tmp_path, images, {"compute.shard_size": size}))
    assert [(shard.start, shard.stop) for shard in plan.shards] == bounds
    assert [shard.index for shard in plan.shards] == list(range(len(bounds)))
    assert sum(len(shard) for shard in plan.shards) == len(plan.samples) == images


# Cost


def test_the_papers_passes(tmp_path: Path) -> None:
    classifier = {"arch": "squeezenet1_1"}  # random weights, 224 x 224
    paper = {"preset": "paper-cub"}
    plan = make_plan(config_of(tmp_path, 3, methods=["hdm", "dm", "grad_cam"], classifier=classifier, hdm=paper, dm=paper))
    assert plan.size == (224, 224)
    assert plan.passes_per_image == {"hdm": 134_800, "dm": 44_800, "grad_cam": 1}
    assert plan.passes == 3 * (134_800 + 44_800 + 1)
    pm = make_plan(config_of(tmp_path, 3, methods=["hdm"], classifier=classifier, hdm={"preset": "paper-pm"}))
    assert pm.passes_per_image == {"hdm": 26_400}


def test_passes_that_depend_on_the_network_are_planned(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, 3, methods=["score_cam", "ablation_cam"], classifier={"arch": "squeezenet1_1", "crop": 64}))
    # The last feature map has one channel per class and is followed by pooling.
    assert plan.passes_per_image == {"score_cam": 1 + 1000, "ablation_cam": 1}
    inner = make_plan(
        config_of(tmp_path, 3, methods=["score_cam"], classifier={"arch": "squeezenet1_1"}, score_cam={"layer": "features.0"})
    )
    assert inner.passes_per_image == {"score_cam": 1 + 64}


def test_bytes_are_those_of_the_arrays() -> None:
    assert plan_of(configuration(), images=5, side=8).bytes == 5 * (2 + 2) * 8 * 8 * 2  # hdm, grad_cam and two stages in float16
    assert plan_of(configuration(methods=["grad_cam"]), images=5, side=8).bytes == 5 * 8 * 8 * 2


def test_stages_are_those_of_hdm() -> None:
    assert plan_of(configuration({"hdm.stages": 4})).stages == 4
    assert plan_of(configuration(methods=["dm", "grad_cam"])).stages is None


def test_facts_are_json(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, 3))
    facts = json.loads(json.dumps(plan.as_dict()))
    assert facts == plan.as_dict()
    assert facts["images"] == 3
    assert facts["shards"] == 2
    assert facts["shard_size"] == 2
    assert facts["config_hash"] == plan.config.hash()
    assert facts["passes"] == 3 * sum(facts["passes_per_image"].values())


# Identity


def test_the_same_plan_is_made_twice(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    one, two = make_plan(config), make_plan(config)
    assert one.weights_digest == two.weights_digest
    assert one.dataset_digest() == two.dataset_digest()
    assert (
        make_plan(config_of(tmp_path, changes={"seed": 1})).weights_digest != one.weights_digest
    )  # random weights are drawn with the seed


@pytest.mark.parametrize(
    "change", [{"image_id": "x"}, {"path": "x"}, {"label": 7}, {"split": "x"}, {"masks": Masks(("x",))}, {"bbox": (0.0, 0.0, 1.0, 1)}]
)
def test_the_listing_tells_a_dataset_that_changed(plan: Plan, change: dict[str, Any]) -> None:
    first, *rest = plan.samples
    assert replace(plan, samples=[replace(first, **change), *rest]).dataset_digest() != plan.dataset_digest()
    assert replace(plan, samples=[*rest, first]).dataset_digest() != plan.dataset_digest()


# Refused


def test_a_target_that_the_network_does_not_have(tmp_path: Path) -> None:
    message = refused(lambda: make_plan(config_of(tmp_path, target=1000)))
    assert message == "target 1000: squeezenet1_1 has 1000 classes, numbered from 0"
    assert make_plan(config_of(tmp_path, target=999)).config.target == 999


def test_a_target_is_checked_against_the_names_of_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(smooth(3), Preprocess(resize=16, crop=16), ("ant", "bee", "cat"), "insects")
    monkeypatch.setattr("pipeline.plan.load_classifier", lambda *_: classifier)
    assert refused(lambda: make_plan(config_of(tmp_path, target=3))) == "target 3: insects has 3 classes, numbered from 0"
    assert make_plan(config_of(tmp_path, target=2)).size == (16, 16)


def test_masks_that_are_larger_than_the_picture(tmp_path: Path) -> None:
    message = refused(lambda: make_plan(config_of(tmp_path, changes={"hdm.sizes": [2, 33]})))
    assert message == "hdm: mask size 33 is not between 1 and the image's side 32; choose smaller sizes or a larger classifier.crop"


@pytest.mark.parametrize(("layer", "words"), [("layer4", "no layer 'layer4'; its parts are features, classifier"), ("", "does not")])
def test_a_layer_that_cannot_be_looked_at(tmp_path: Path, layer: str, words: str) -> None:
    config = config_of(tmp_path, methods=["score_cam"], score_cam={"layer": layer})
    message = refused(lambda: make_plan(config))
    assert words in message
    assert "sizes" not in message


def test_a_dataset_that_is_missing(tmp_path: Path) -> None:
    assert "no such folder" in refused(lambda: make_plan(configuration({"dataset.root": str(tmp_path / "nowhere")})))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classifier.arch": "resnet5o"}, ["classifier: ", "no classification network 'resnet5o'", "resnet50"]),
        ({"classifier.weights": "BEST"}, ["classifier: ", "squeezenet1_1 has no weights 'BEST'", "IMAGENET1K_V1"]),
    ],
    ids=str,
)
def test_a_classifier_that_nobody_has(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    message = refused(lambda: make_plan(config_of(tmp_path, changes=changes)))
    assert all(word in message for word in words)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> Classifier:
        raise OSError("no route to host\nafter 3 tries")

    monkeypatch.setattr(Classifier, "from_torchvision", offline)
    config = configuration({"classifier.weights": "IMAGENET1K_V1"}).classifier
    message = refused(lambda: load_classifier(config, 0))
    assert message == "classifier: the weights IMAGENET1K_V1 of squeezenet1_1 cannot be loaded (no route to host after 3 tries)"


def test_what_the_network_sees_can_be_chosen() -> None:
    given = load_classifier(configuration(classifier={"arch": "squeezenet1_1"}).classifier, 0).preprocess
    chosen = load_classifier(configuration(classifier={"arch": "squeezenet1_1", "crop": 64}).classifier, 0).preprocess
    assert given is not None
    assert chosen is not None
    assert (given.resize, given.crop) == (256, 224)
    assert (chosen.resize, chosen.crop, chosen.mean) == (256, 64, given.mean)


def test_a_network_that_cannot_take_the_crop_is_found_before_any_worker_starts(tmp_path: Path) -> None:
    message = refused(lambda: make_plan(config_of(tmp_path, classifier={"arch": "squeezenet1_1", "resize": 8, "crop": 8})))
    assert message.startswith("classifier: squeezenet1_1: the network does not take images of 8 x 8")
