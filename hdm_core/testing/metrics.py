"""The promises of a metric: entry, range, direction, regions, batches."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.metrics import METRICS, Metric, Metrics, MetricSettings, evaluate
from hdm_core.metrics.evaluate import metric_forwards
from hdm_core.testing.networks import Untraceable, assert_unchanged, mixed_state_network, normalised_network, sample_images, snapshot
from hdm_core.testing.promises import Promises


@dataclass(frozen=True)
class MetricCase:
    """A registered metric."""

    entry: Metric

    def settings(self, **given: Any) -> MetricSettings:
        """Return settings with which the metric is measured; one on request is named."""
        return MetricSettings(names=(self.entry.id,) if self.entry.on_request else None, **given)

    def measure(self, classifier: Classifier, images: Tensor, maps: Tensor, targets: Any, **arguments: Any) -> Tensor:
        """Return the metric's values, (N,)."""
        return self.of(evaluate(classifier, images, maps, targets, **{"settings": self.settings(), **arguments}))

    def of(self, metrics: Metrics) -> Tensor:
        """Return the metric's values among all metrics, (N,)."""
        return metrics.values[self.entry.id]


METRIC_PROMISES: Promises[MetricCase] = Promises()
_promise = METRIC_PROMISES.add

_SIZE = (16, 12)


class EvidenceNetwork(Untraceable):
    """A network whose logits are 0 and the mean of the pixels in a square."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())
        self.seen = SimpleNamespace(images=0)  # an integer would be a change of the network, which is checked again then

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, 2) of images (B, C, 16, 12) and count them."""
        super().forward(images)
        self.seen.images += len(images)
        evidence = (images * evidence_square().to(images)).sum((1, 2, 3)) / 36
        return torch.stack([torch.zeros_like(evidence), evidence], 1)


def evidence_square() -> Tensor:
    """Return the evidence of `EvidenceNetwork`, (16, 12) bool: 6 x 6 pixels."""
    square = torch.zeros(_SIZE, dtype=torch.bool)
    square[4:10, 3:9] = True
    return square


def _random(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *_SIZE, generator=torch.Generator().manual_seed(seed))


def _assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)


@_promise()
def the_entry_is_complete(case: MetricCase) -> None:
    entry = case.entry
    assert METRICS[entry.id] is entry
    assert entry.id.isidentifier()
    assert entry.id == entry.id.lower()
    for text in (entry.title, entry.definition):
        assert text
        assert text.isprintable()
        assert text == text.strip()
    assert not entry.definition.endswith(".")
    assert entry.value_range[0] < entry.value_range[1]
    assert entry.arrow == ("↓" if entry.lower_is_better else "↑")
    assert entry.forwards(*_SIZE) >= 0
    assert entry.forwards_per_image(*_SIZE) >= 0
    assert entry.protocols


@_promise("paper", "rise")
def every_map_has_one_value_in_the_range_or_nan(case: MetricCase, protocol: Any) -> None:
    images, maps = sample_images(3, *_SIZE), _random(5)
    settings, index = case.settings(protocol=protocol), torch.tensor([0, 1, 1, 2, 0])
    classifier = Classifier.from_module(normalised_network())
    values = case.measure(classifier, images, maps, [0, 2, 1], regions=_random(3) > 0.5, settings=settings, index=index)
    assert values.shape == (5,)
    assert values.dtype == torch.float32
    assert values.device.type == "cpu"
    low, high = case.entry.value_range
    assert all(low <= value <= high for value in values[~values.isnan()].tolist())
    assert values.isnan().all() == (protocol not in case.entry.protocols)


@_promise()
def a_map_of_the_evidence_is_at_least_as_good_as_its_opposite(case: MetricCase) -> None:
    square = evidence_square()
    good = square.float() * (0.5 + _random(1)[0] / 2)
    images, maps = (0.25 + 0.75 * square).expand(1, 3, -1, -1), torch.stack([good, 1 - good])
    classifier, index = Classifier.from_module(EvidenceNetwork()), torch.tensor([0, 0])
    faithful, opposite = case.measure(classifier, images, maps, 1, regions=square[None], index=index).tolist()
    assert faithful <= opposite if case.entry.lower_is_better else faithful >= opposite


@_promise()
def regions_count_if_and_only_if_the_entry_needs_them(case: MetricCase) -> None:
    images, maps, regions = sample_images(2, *_SIZE), _random(2), _random(2, seed=1) > 0.6
    classifier = Classifier.from_module(normalised_network())
    none, empty, some = (
        case.measure(classifier, images, maps, [0, 2], regions=each) for each in (None, torch.zeros_like(regions), regions)
    )
    _assert_same(none, empty)
    if case.entry.needs_region:
        assert none.isnan().all()
        assert not some.isnan().any()
    else:
        _assert_same(none, some)


@_promise()
def settings_change_nothing_if_the_entry_reads_maps_alone(case: MetricCase) -> None:
    images, maps, regions = sample_images(2, *_SIZE), _random(2), _random(2, seed=1) > 0.6
    first = case.measure(Classifier.from_module(normalised_network()), images, maps, [0, 2], regions=regions)
    other = Classifier.from_module(normalised_network(seed=1))
    second = case.measure(other, images, maps, [1, 0], regions=regions, settings=case.settings(baseline="blur", protocol="rise"))
    assert not case.entry.map_only or torch.equal(first, second)


@_promise()
def a_batch_equals_its_singles(case: MetricCase) -> None:
    images, targets, regions = sample_images(3, *_SIZE), [0, 2, 1], _random(3, seed=1) > 0.6
    maps, index = _random(5), torch.tensor([1, 0, 2, 1, 0])
    classifier = Classifier.from_module(normalised_network())
    together = case.measure(classifier, images, maps, targets, regions=regions, index=index)
    for n, b in enumerate(index.tolist()):
        _assert_same(together[[n]], case.measure(classifier, images[[b]], maps[[n]], [targets[b]], regions=regions[[b]]))


@_promise(1, 7, 64)
def the_batch_size_of_forward_passes_changes_nothing(case: MetricCase, batch: int) -> None:
    images, maps, regions = sample_images(2, *_SIZE), _random(2), _random(2, seed=1) > 0.6
    classifier = Classifier.from_module(normalised_network())
    expected, values = (case.measure(classifier, images, maps, [0, 2], regions=regions, batch=each) for each in (5, batch))
    _assert_same(values, expected)


@_promise()
def the_same_call_gives_the_same_values_and_disturbs_no_random_state(case: MetricCase) -> None:
    images, maps, regions = sample_images(2, *_SIZE), _random(2), _random(2, seed=1) > 0.6
    classifier = Classifier.from_module(normalised_network())
    first = case.measure(classifier, images, maps, [0, 2], regions=regions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        state = torch.random.get_rng_state()
        _assert_same(case.measure(classifier, images, maps, [0, 2], regions=regions), first)
        assert torch.equal(torch.random.get_rng_state(), state)


@_promise()
def network_images_maps_and_regions_are_left_as_they_were(case: MetricCase) -> None:
    network, given = mixed_state_network(), (sample_images(2, *_SIZE), _random(2), _random(2, seed=1) > 0.6)
    before, copies = snapshot(network), [tensor.clone() for tensor in given]
    images, maps, regions = given
    case.measure(Classifier.from_module(network), images, maps, [0, 2], regions=regions)
    assert_unchanged(network, before)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, copies, strict=True))


@_promise("paper", "rise")
def the_entries_say_how_many_forward_passes_are_made(case: MetricCase, protocol: Any) -> None:
    network = EvidenceNetwork()
    settings, index = case.settings(protocol=protocol), torch.tensor([0, 1, 1])
    for _ in range(2):  # the first call also checks the network
        network.seen.images = 0
        case.measure(Classifier.from_module(network), sample_images(2, *_SIZE), _random(3), [0, 1], settings=settings, index=index)
    shared = metric_forwards(*_SIZE, settings, maps=0)
    own = metric_forwards(*_SIZE, settings, maps=1) - shared
    assert network.seen.images == 2 * shared + 3 * own
