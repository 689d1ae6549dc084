"""Targets: the predicted class, the label's, a number or the top K; alone, in a shard and in a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hdm_core import Classifier, Preprocess
from hdm_core.problem_type import ProblemType
from pipeline.classifiers.targets import MapFailure, MapRequest, class_of, classes_of, request_maps
from pipeline.config.schema import RunConfig, Target, Top
from pipeline.datasets import Sample
from pipeline.explain.shard import ShardResult, explain_shard
from pipeline.plan import Shard, make_plan
from tests.support.plans import DM, HDM, configuration, refused, save_picture
from tests.support.tiny_networks import smooth

SIDE = 16
SEVERAL: ProblemType = "multi_label_classification"
REGRESSION = {"classifier.problem_type": "regression"}
NAMES = ("ant", "bee", "cat")


def classifier(
    names: Sequence[str] | None = NAMES, module: nn.Module | None = None, problem_type: ProblemType = "single_label_classification"
) -> Classifier:
    return Classifier(module or smooth(3), Preprocess(resize=SIDE, crop=SIDE), names, "insects", problem_type=problem_type)


def sample(label: int | None = None, name: str | None = None) -> Sample:
    return Sample("x", "x.png", label=label, class_name=name)


# A label as a class of the network


@pytest.mark.parametrize(
    ("names", "label", "name", "expected"),
    [
        (NAMES, 0, "cat", 2),  # the dataset has its own numbers of the classes
        (NAMES, 9, "bee", 1),
        (NAMES, None, "ant", 0),
        (NAMES, 1, None, 1),
        (("caf\u00e9", "cat"), 1, "cafe\u0301", 0),
        (("cafe\u0301", "cat"), 1, "caf\u00e9", 0),
        (None, 2, "cat", 2),
        (None, 7, None, 7),
    ],
)
def test_a_label_is_a_class_by_its_name_or_else_its_number(
    names: Sequence[str] | None, label: int | None, name: str | None, expected: int
) -> None:
    assert class_of(sample(label, name), classifier(names)) == expected


@pytest.mark.parametrize(
    ("names", "label", "name", "words"),
    [
        (NAMES, 1, "dog", "the label 'dog' is the name of none of the classifier's classes"),
        (("crane", "crane"), 1, "crane", "the label 'crane' is the name of 2 of the classifier's classes"),
        (("caf\u00e9", "cafe\u0301"), 1, "caf\u00e9", "the label 'caf\u00e9' is the name of 2 of the classifier's classes"),
        (NAMES, 1, "Cat", "the label 'Cat' is the name of none of the classifier's classes"),
        (NAMES, 3, None, "the label 3 is no class of the classifier, which has 3"),
        (None, -1, None, "the label -1 is no class of the classifier"),
        (NAMES, None, None, "the image has no label to explain"),
        (None, None, "cat", "the image has no label to explain"),
    ],
)
def test_a_label_that_is_no_class(names: Sequence[str] | None, label: int | None, name: str | None, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        class_of(sample(label, name), classifier(names))
    assert str(caught.value) == words


# A label that names several classes


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        (NAMES, "cat|ant", [2, 0]),
        (NAMES, " bee | bee |cat ", [1, 2]),
        (NAMES, "bee", [1]),
        (("a|b", "a", "b"), "a|b", [0]),  # a class of this name
    ],
)
def test_a_label_of_several_names(names: Sequence[str], name: str, expected: list[int]) -> None:
    assert classes_of(sample(0, name), classifier(names, problem_type=SEVERAL), 3) == expected


@pytest.mark.parametrize(
    ("names", "name", "words"),
    [
        (NAMES, "cat|dog", "the label 'dog' is the name of none of the classifier's classes"),
        (NAMES, "ant|bee|cat", "the label 'ant|bee|cat' names 3 classes: write target: {labels: 3}"),
        (NAMES, "cat|", "the label '' is the name of none of the classifier's classes"),
        (None, "cat|ant", "the label 'cat|ant' has several names, and the classifier has no names of classes"),
    ],
)
def test_a_label_of_several_names_that_cannot_be(names: Sequence[str] | None, name: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        classes_of(sample(0, name), classifier(names, problem_type=SEVERAL), 2)
    assert str(caught.value) == words


def test_a_single_target_of_a_label_with_several_names_is_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match=r"if it names several classes, write target: \{labels: K\}"):
        class_of(sample(0, "cat|ant"), classifier(problem_type=SEVERAL))


# Requested maps


IMAGES = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_one_class_an_image() -> None:
    samples = [sample(0), sample(2), sample(None), sample(5)]
    assert request_maps("predicted", classifier(), samples, IMAGES) == [MapRequest(place, 0, None) for place in range(4)]
    assert request_maps(1, classifier(), samples, IMAGES) == [MapRequest(place, 0, 1) for place in range(4)]
    labels = request_maps("label", classifier(), samples, IMAGES)
    assert labels[:2] == [MapRequest(0, 0, 0), MapRequest(1, 0, 2)]
    assert [(item.request.place, item.request.rank) for item in labels[2:] if isinstance(item, MapFailure)] == [(2, 0), (3, 0)]


def test_the_most_probable_classes_in_their_order() -> None:
    logits = smooth(3)(IMAGES)
    order = logits.argsort(1, descending=True)[:, :2].tolist()
    expected = [MapRequest(place, rank, target) for place, targets in enumerate(order) for rank, target in enumerate(targets)]
    assert request_maps(Top(top=2), classifier(), [sample()] * 4, IMAGES) == expected


def test_the_classes_above_a_probability() -> None:
    probability = smooth(3)(IMAGES).sigmoid().detach()
    above = float(probability.flatten().sort().values[[4, 5]].mean())  # some images have all classes, some none
    found = request_maps(Top(top=2, above=above), classifier(problem_type=SEVERAL), [sample()] * 4, IMAGES)
    for place, row in enumerate(probability):
        expected = [target for target in row.argsort(descending=True).tolist() if row[target] > above][:2]
        mine = [item for item in found if (item.request if isinstance(item, MapFailure) else item).place == place]
        if expected:
            assert mine == [MapRequest(place, rank, target) for rank, target in enumerate(expected)]
        else:
            assert mine == [MapFailure(MapRequest(place, 0, None), f"no class has a probability above {above:g}")]
    assert len(found) > len(IMAGES)


class Picky(nn.Module):
    """A network that raises on a batch with a bright image."""

    def __init__(self) -> None:
        super().__init__()
        self.network = smooth(3)

    def forward(self, images: Tensor) -> Tensor:
        if (images > 50).any():
            raise RuntimeError("too\nbright")
        return self.network(images)


def test_an_image_on_which_the_network_raises_costs_no_other_its_classes() -> None:
    images = IMAGES.clone()
    images[1] = 99
    found = request_maps(Top(top=2), classifier(module=Picky()), [sample()] * 4, images)
    good = request_maps(Top(top=2), classifier(), [sample()] * 4, IMAGES)
    assert [*found[:2], *found[4:]] == [*good[:2], *good[4:]]
    assert found[2:4] == [MapFailure(MapRequest(1, rank, None), "RuntimeError: too bright") for rank in range(2)]


class Failing(nn.Module):
    """A network that raises on more than one image, and whose device fails at the next."""

    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("one at a time") if len(images) > 1 else torch.AcceleratorError("CUDA error: unspecified launch failure")


def test_a_device_that_fails_is_no_images_failure() -> None:
    with pytest.raises(torch.AcceleratorError):
        request_maps(Top(top=2), classifier(module=Failing()), [sample()] * 4, IMAGES)


# A shard


def work(tmp_path: Path, target: Target | dict[str, int], samples: Sequence[Sample], batch: int = 4) -> ShardResult:
    config: RunConfig = configuration({"compute.batch_size": batch}, methods=["hdm", "dm", "grad_cam"], hdm=HDM, dm=DM, target=target)
    return explain_shard(classifier(), config, Shard(0, 0, len(samples)), samples)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Write three photographs, the middle one broken."""
    found = [Sample(f"{n}.png", str(save_picture(tmp_path / f"{n}.png", seed=n)), label=n, class_name=NAMES[n]) for n in range(3)]
    Path(found[1].path).write_bytes(b"no image")
    return found


@pytest.mark.parametrize("batch", [1, 4])
def test_every_rank_has_the_map_and_the_record_that_its_class_has_alone(tmp_path: Path, samples: list[Sample], batch: int) -> None:
    both = work(tmp_path, {"top": 2}, samples, batch)
    assert {name: array.shape for name, array in both.arrays.items()} == {
        **dict.fromkeys(("hdm", "dm", "grad_cam"), (3, 2, SIDE, SIDE)),
        "hdm_stages": (3, 2, 2, SIDE, SIDE),
    }
    keys = [(record.row, record.method, record.rank) for record in both.records]
    assert keys == [(row, method, rank) for row in range(3) for method in ("hdm", "dm", "grad_cam") for rank in (0, 1)]
    singles = {target: work(tmp_path, target, samples, batch) for target in {record.target for record in both.records} - {None}}
    for record in (record.to_row() for record in both.records):
        row, method, rank = record["row"], record["method"], record["rank"]
        if row == 1:
            assert record["status"] == "unreadable"
            assert not both.arrays[method][row].any()
            continue
        alone = singles[record["target"]]
        (expected,) = (other.to_row() for other in alone.records if (other.row, other.method) == (row, method))
        names = ("status", "target", "target_name", "passes", "region")
        assert {name: record[name] for name in names} == {name: expected[name] for name in names}
        for name in ("probability", "logit", "insertion_auc", "deletion_auc"):
            assert record[name] == pytest.approx(expected[name], abs=1e-3)
        for name in [method, *(["hdm_stages"] if method == "hdm" else [])]:
            np.testing.assert_allclose(both.arrays[name][row, rank], alone.arrays[name][row], rtol=0, atol=2e-3)
    first = {record.row: record.probability for record in both.records if not record.rank and record.row != 1}
    second = {record.row: record.probability for record in both.records if record.rank and record.row != 1}
    assert all(first[row] >= second[row] for row in first)


def test_an_image_whose_label_is_no_class_is_failed_and_the_others_are_explained(tmp_path: Path, samples: list[Sample]) -> None:
    odd = [samples[0], Sample("odd", samples[2].path, label=0, class_name="dog"), Sample("none", samples[2].path), samples[2]]
    result = work(tmp_path, "label", odd)
    records = [record for record in result.records if record.method == "grad_cam"]
    assert [record.status for record in records] == ["ok", "failed", "failed", "ok"]
    assert [record.target_name for record in records] == ["ant", None, None, "cat"]
    assert records[1].error == "the label 'dog' is the name of none of the classifier's classes"
    assert records[2].error == "the image has no label to explain"
    assert not result.arrays["grad_cam"][1:3].any()


def test_a_label_beyond_a_network_without_names_is_failed_too(samples: list[Sample]) -> None:
    config = configuration(methods=["grad_cam"], target="label")
    odd = [samples[0], Sample("odd", samples[2].path, label=8)]
    records = explain_shard(classifier(None), config, Shard(0, 0, 2), odd).records
    assert [record.status for record in records] == ["ok", "failed"]
    assert "target 8 is no class of this network: it has 3" in (records[1].error or "")


def test_an_image_has_a_record_for_each_class_of_its_label_and_one_if_there_is_none(samples: list[Sample]) -> None:
    config = configuration(methods=["eigen_cam", "grad_cam"], target={"labels": 3})
    names = ("cat|ant|bee", None, "bee|dog", "ant")
    several = [Sample(str(n), samples[min(n, 2)].path, class_name=name) for n, name in enumerate(names)]
    result = explain_shard(classifier(problem_type=SEVERAL), config, Shard(0, 0, 4), several)
    found = [(record.row, record.rank, record.status, record.target) for record in result.records if record.method == "grad_cam"]
    assert found == [
        *((0, rank, "ok", target) for rank, target in enumerate([2, 0, 1])),
        (1, 0, "unreadable", None),
        (2, 0, "failed", None),
        (3, 0, "ok", 0),
    ]
    assert result.arrays["grad_cam"].shape == (4, 3, SIDE, SIDE)
    assert result.arrays["grad_cam"].any((2, 3)).tolist() == [[True] * 3, [False] * 3, [False] * 3, [True, False, False]]
    for record in result.records:
        if record.status == "ok":
            expected = smooth(3)(classifier().prepare([Image.open(several[record.row].path)]))[0, record.target].detach()
            assert record.logit == pytest.approx(float(expected), abs=1e-5)
            assert record.probability == pytest.approx(float(expected.sigmoid()), abs=1e-6)


def test_a_yes_no_network_explains_the_answer_of_the_label(samples: list[Sample]) -> None:
    config = configuration(methods=["grad_cam"], target="label")
    truth = [replace(samples[0], class_name="no ant"), replace(samples[2], class_name="ant"), replace(samples[0], label=0, class_name=None)]
    judge = classifier(("no ant", "ant"), smooth(1), SEVERAL)
    records = explain_shard(judge, config, Shard(0, 0, 3), truth).records
    assert [(record.target, record.target_name) for record in records] == [(0, "no ant"), (1, "ant"), (0, "no ant")]
    for record in records:
        assert record.probability == pytest.approx(1 / (1 + math.exp(-(record.logit or 0))))


def test_a_contrast_is_explained_and_measured(samples: list[Sample]) -> None:
    """As two logits -d and d of the difference d would be."""
    config = configuration(methods=["grad_cam", "gradient"], target={"contrast": ["cat", 0]})
    result = explain_shard(classifier(), config, Shard(0, 0, 3), samples)
    written = classifier(("no", "yes"), Difference(), SEVERAL)
    expected = explain_shard(written, configuration(methods=["grad_cam", "gradient"], target=1), Shard(0, 0, 3), samples)
    for record, other in zip(result.records, expected.records, strict=True):
        assert record.status == other.status
        if record.status == "ok":
            assert (record.target, record.contrast, record.target_name) == (2, 0, "cat rather than ant")
            assert (record.probability, record.logit) == (pytest.approx(other.probability), pytest.approx(other.logit))
            for name, value in record.metrics.items():
                assert value == pytest.approx(other.metrics[name], abs=1e-3), name
    for name, maps in expected.arrays.items():
        np.testing.assert_allclose(result.arrays[name], maps, rtol=0, atol=2e-3)


class Difference(nn.Module):
    """The difference of the logits of two classes, and its negative."""

    def __init__(self) -> None:
        super().__init__()
        self.network = smooth(3)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return torch.stack([logits[:, 0] - logits[:, 2], logits[:, 2] - logits[:, 0]], 1)


def test_the_runner_up_of_each_image(samples: list[Sample]) -> None:
    config = configuration(methods=["eigen_cam", "gradient"], target="runner_up")
    records = explain_shard(classifier(), config, Shard(0, 0, 3), samples).records
    order = smooth(3)(classifier().prepare([Image.open(samples[row].path) for row in (0, 2)])).argsort(1, descending=True)
    found = [(record.target, record.contrast) for record in records if record.status == "ok" and record.method == "gradient"]
    assert found == [tuple(row) for row in order[:, :2].tolist()]


def test_only_misclassified_images_are_explained_for_both_classes(samples: list[Sample]) -> None:
    config = configuration(methods=["eigen_cam", "grad_cam"], target="wrong")
    predicted = smooth(3)(classifier().prepare([Image.open(samples[row].path) for row in (0, 2)])).argmax(1).tolist()
    labels = [predicted[0], 1, (predicted[1] + 1) % 3]  # right, unreadable, wrong
    mixed = [Sample(str(n), each.path, label, class_name=NAMES[label]) for n, (each, label) in enumerate(zip(samples, labels, strict=True))]
    mixed.append(Sample("none", samples[0].path))
    result = explain_shard(classifier(), config, Shard(0, 0, 4), mixed)
    found = [(record.row, record.rank, record.status, record.target) for record in result.records if record.method == "grad_cam"]
    assert found == [
        (0, 0, "skipped", None),
        (1, 0, "unreadable", None),
        (2, 0, "ok", predicted[1]),
        (2, 1, "ok", labels[2]),
        (3, 0, "failed", None),
    ]
    assert result.records[0].error == "the predicted class is that of the label"
    assert result.arrays["grad_cam"].any((2, 3)).tolist() == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]


# The plan


def folder(tmp_path: Path, *classes: str) -> dict[str, Any]:
    for seed, name in enumerate(classes):
        save_picture(tmp_path / "photographs" / name / "0.png", seed=seed)
    return {"kind": "folder", "root": str(tmp_path / "photographs")}


def test_a_plan_counts_every_class(tmp_path: Path) -> None:
    dataset = folder(tmp_path, "a", "b", "c")
    one, three = (make_plan(configuration(dataset=dataset, target=target)) for target in ("predicted", {"top": 3}))
    assert (three.passes, three.bytes) == (3 * one.passes, 3 * one.bytes)
    assert three.passes_per_image == {method: 3 * passes for method, passes in one.passes_per_image.items()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": {"top": 1001}}, "target.top 1001: squeezenet1_1 has only 1000 classes"),
        ({"target": 1000}, "target 1000: squeezenet1_1 has 1000 classes, numbered from 0"),
        ({"target": "label", "classifier.classes": [f"class {n}" for n in range(1000)]}, "the label 'a' is the name of none"),
        ({"classifier.classes": 7}, "squeezenet1_1 answers with 1000 classes, and 7 are named"),
        ({"classifier.classes": ["a", "b"]}, "squeezenet1_1 answers with 1000 classes, and 2 are named"),
        ({"target": {"top": 0}}, "greater than or equal to 1, not {'top': 0}"),
        ({"target": {"labels": 0}}, "greater than or equal to 1, not {'labels': 0}"),
        ({"target": {"top": 2, "above": 1}}, "be less than 1, not {'top': 2, 'above': 1}"),
        ({"target": {"labels": 2}}, "target.labels: squeezenet1_1 is no classifier of several labels; write target: label, or set"),
        ({"target": "predicted", **REGRESSION}, "a regression predicts no class; write the number of one of its 1000 outputs, from 0"),
        ({"target": "label", **REGRESSION}, "a regression predicts no class"),
        ({"target": {"top": 2}, **REGRESSION}, "a regression predicts no class"),
        ({"classifier.problem_type": "multi_label"}, "classifier.problem_type: input should be 'single_label_classification', "),
        ({"target": {"contrast": [1, 1]}}, "target.contrast: class 1 cannot be compared with itself"),
        ({"target": {"contrast": [1, "ant"]}}, "target.contrast: target 'ant': this classifier has no class names"),
        ({"target": {"contrast": [1, 1000]}}, "target.contrast 1000: squeezenet1_1 has 1000 classes, numbered from 0"),
        ({"target": {"contrast": [1]}}, "not {'contrast': [1]}"),
        ({"target": "wrong", "classifier.classes": [f"class {n}" for n in range(1000)]}, "the label 'a' is the name of none"),
        ({"target": "wrong", "classifier.problem_type": SEVERAL}, "target wrong: of several labels none is the only true one"),
        ({"target": "best"}, "target: input should be 'predicted', 'label', 'runner_up' or 'wrong' or"),
    ],
    ids=str,
)
def test_a_target_that_cannot_be(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    dataset = folder(tmp_path, "a")
    assert words in refused(lambda: make_plan(configuration(changes, dataset=dataset)))


def test_a_label_of_more_classes_than_the_target_allows_is_refused_before_the_run(tmp_path: Path) -> None:
    names = [f"class {n}" for n in range(1000)]
    changes = {"classifier.classes": names, "classifier.problem_type": SEVERAL, "target.labels": 2}
    dataset = folder(tmp_path, "class 3", "class 1|class 2", "class 4|class 5|class 6|class 7")
    assert "target.labels 2: a label names 4 classes; write target: {labels: 4}" in refused(
        lambda: make_plan(configuration(changes, dataset=dataset))
    )
    plan = make_plan(configuration({**changes, "target.labels": 4}, dataset=dataset))
    assert plan.passes_per_image["grad_cam"] == 4
    assert plan.preprocess_identity["problem_type"] == SEVERAL
