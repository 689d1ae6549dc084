from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core.methods.deeplift import deeplift
from tests.support.tiny_networks import pictures, smooth
from tests.support.tricky_networks import Dense, Pooled, Residual, seeded

pytestmark = pytest.mark.usefixtures("double")
TARGETS = torch.tensor([2, 0, 1])
TOYS = [Residual, Dense, Pooled, smooth]


class Pair(nn.Module):
    """Network of two logits from a function of an image of 1 x 1 x W."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score

    def forward(self, images: Tensor) -> Tensor:
        score = self.score(images).flatten(1).sum(1)
        return torch.stack([score, -score], 1)


def contributions(score: Callable[[Tensor], Tensor], image: list[float], reference: list[float]) -> list[float]:
    x, r = (torch.tensor(values).reshape(1, 1, 1, -1) for values in (image, reference))
    return deeplift(Pair(score), x, torch.tensor([0]), r).flatten().tolist()


@pytest.mark.parametrize("make", TOYS)
@pytest.mark.parametrize("kind", ["grey", "one an image"])
def test_contributions_sum_to_the_difference_from_the_reference(make: Callable[[], nn.Module], kind: str) -> None:
    network, images = seeded(make), pictures(3, 12)
    baseline = torch.full((1, 3, 1, 1), 0.1) if kind == "grey" else pictures(3, 12, seed=1)
    found = deeplift(network, images, TARGETS, baseline)
    difference = network(images) - network(baseline.expand_as(images))
    torch.testing.assert_close(found.sum((1, 2, 3)), difference.gather(1, TARGETS[:, None])[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", TOYS)
def test_a_batch_equals_its_singles(make: Callable[[], nn.Module]) -> None:
    network, images, baseline = seeded(make), pictures(3, 12), torch.zeros(1, 3, 1, 1)
    together = deeplift(network, images, TARGETS, baseline)
    for b in range(3):
        alone = deeplift(network, images[b : b + 1], TARGETS[b : b + 1], baseline)
        torch.testing.assert_close(together[b], alone[0], rtol=0, atol=1e-10)


def test_rescale_by_hand() -> None:
    # relu(3 a - b) at (1, 1) is 2, at (0, 2) it is 0 of -2: the multiplier is 2 / 4, where the gradient is 1.
    def score(x: Tensor) -> Tensor:
        return torch.relu(3 * x[..., :1] - x[..., 1:])

    assert contributions(score, [1.0, 1.0], [0.0, 2.0]) == [1.5, 0.5]


def test_equal_inputs_use_the_gradient_and_contribute_nothing() -> None:
    assert contributions(torch.sigmoid, [0.3, 2.0], [0.3, 0.0]) == [0.0, pytest.approx(1 / (1 + 2.718281828459045**-2) - 0.5)]


def test_a_zero_gradient_of_relu_still_has_a_contribution() -> None:
    assert contributions(torch.relu, [-1.0], [2.0]) == [-2.0]  # the gradient is 0


@pytest.mark.parametrize(
    ("image", "reference", "expected"),
    [
        ([5.0, 1.0], [2.0, 1.0], [3.0, 0.0]),  # the same pixel is largest in both
        ([5.0, 1.0], [2.0, 4.0], [1.0, 0.0]),  # it grew from 4 to 5: by the image's largest
        ([3.0, 1.0], [2.0, 4.0], [0.0, -1.0]),  # it fell from 4 to 3: by the reference's largest
    ],
)
def test_max_pool_by_hand(image: list[float], reference: list[float], expected: list[float]) -> None:
    assert contributions(lambda x: F.max_pool2d(x, (1, 2)), image, reference) == pytest.approx(expected)


# fmt: off
ELEMENTWISE = [
    F.relu, F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.softsign, F.logsigmoid,
    F.sigmoid, F.hardsigmoid, F.hardswish, F.tanhshrink, F.softshrink, F.hardshrink, torch.tanh,
    lambda x: x.clamp(0, 1), lambda x: torch.clip(x, min=-1), lambda x: torch.clamp_min(x, 0.2), lambda x: F.threshold(x, 0.1, 0.1),
    lambda x: F.prelu(x, torch.tensor([0.3])), lambda x: F.relu(input=x),
]
# fmt: on


@pytest.mark.parametrize("function", ELEMENTWISE, ids=[f"{place} {f.__name__}" for place, f in enumerate(ELEMENTWISE)])
def test_every_elementwise_function_is_rescaled(function: Callable[[Tensor], Tensor]) -> None:
    image, reference = torch.tensor([-2.0, -0.3, 0.4, 3.0]), torch.tensor([0.7, 0.1, -1.0, -0.6])
    found = contributions(function, image.tolist(), reference.tolist())
    torch.testing.assert_close(torch.tensor(found), function(image) - function(reference), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "overwrite",
    [Tensor.relu_, torch.relu_, lambda x: F.relu(x, True), torch.ops.aten.relu_.default],
    ids=["method", "torch", "functional", "aten"],
)
def test_what_works_in_place_changes_what_it_is_given(overwrite: Callable[[Tensor], Tensor]) -> None:
    def score(x: Tensor) -> Tensor:
        x = x * 1
        overwrite(x)
        return x

    assert contributions(score, [-1.0, 3.0], [2.0, -1.0]) == [-2.0, 3.0]


def test_an_exported_network_is_rescaled_alike() -> None:
    network, images = seeded(lambda: Residual()), pictures(3, 12)
    exported = torch.export.export(copy.deepcopy(network), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    baseline = torch.zeros(1, 3, 1, 1)
    torch.testing.assert_close(deeplift(exported, images, TARGETS, baseline), deeplift(network, images, TARGETS, baseline))


def test_activations_that_lost_the_images_are_refused() -> None:
    def score(x: Tensor) -> Tensor:
        return torch.relu(x.sum(0, keepdim=True)).expand(len(x), -1, -1, -1)

    with pytest.raises(ValueError, match="images along their first axis; relu was called with"):
        contributions(score, [1.0], [0.0])
