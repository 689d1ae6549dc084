"""The setting `noise`: a new smooth random background in every step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, Preprocess, explain
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import upsample
from hdm_core.masking.pass_counter import PassCounter
from tests.support.tiny_networks import pictures, smooth

TARGETS = torch.tensor([1, 0, 2])
SETTINGS = {
    "sizes": (3, 5),
    "ratios": (2,),
    "steps": 6,
    "learning_rate": 0.15,
    "eta": 1.0,
    "relative": True,
    "noise": 0.5,
    "keep_fraction": 1.0,
}


def loss(images: Tensor, baseline: Tensor, noise: float = 0.5, *, relative: bool = False, activation: str = "logit") -> ConsistencyLoss:
    network = smooth().requires_grad_(False)
    return ConsistencyLoss(network, images, TARGETS[: len(images)], baseline, activation, 4, PassCounter(), relative, noise)


def test_backgrounds_do_not_depend_on_earlier_random_draws() -> None:
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.rand(seed)
        drawn.append(next(loss(pictures(2, 12, 10), torch.zeros(1, 3, 1, 1)).noise_backgrounds(1)))
    assert torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_noise_of_all_steps_at_once_is_that_of_one_draw_per_step(channels: int, dtype: torch.dtype) -> None:
    images = torch.zeros(2, channels, 9, 7, dtype=dtype)

    def logits(batch: Tensor) -> Tensor:
        return batch.mean((2, 3)).repeat(1, 3)

    found = ConsistencyLoss(logits, images, torch.tensor([0, 1]), images[:1, :, :1, :1], "logit", 4, PassCounter(), noise=0.5)
    generator = torch.Generator().manual_seed(0)
    expected = [0.5 * upsample(torch.randn(1, channels, 4, 4, generator=generator).to(dtype), 9, 7) for _ in range(12)]
    # Three levels of a mask, each with its own steps, and a stage that continues the numbers.
    drawn = [*found.noise_backgrounds(5), *found.noise_backgrounds(1), *found.for_images(images).noise_backgrounds(6)]
    assert all(torch.equal(one, other) for one, other in zip(drawn, expected, strict=True))


def test_all_images_share_one_background() -> None:
    one, two = (next(loss(pictures(batch, seed=batch), torch.zeros(1, 3, 1, 1)).noise_backgrounds(1)) for batch in (1, 3))
    assert torch.equal(one, two)


def test_its_spread_is_the_noise_and_it_is_smooth() -> None:
    found = loss(pictures(1, 32), torch.zeros(1, 3, 1, 1), noise=3.0)
    drawn = torch.cat(list(found.noise_backgrounds(300)))
    # At the centre of a cell of the 4 x 4 grid interpolation averages nothing: pixels 4, 12, .. of 32 are half a pixel beside it.
    assert drawn[:, :, 4::8, 4::8].std() == pytest.approx(3 * (0.9375**2 + 0.0625**2), rel=0.05)
    assert drawn.mean() == pytest.approx(0, abs=0.1)
    # Neighbours differ by at most 1/8 of the difference between two values of the grid.
    assert drawn.diff(dim=3).std() < drawn.std() / 4


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("activation", ["logit", "probability"])
@pytest.mark.parametrize("kind", ["grey", "one per image"])
def test_the_gradient_is_that_of_the_formula(relative: bool, activation: str, kind: str) -> None:
    images, index = pictures(3, 8, 10), torch.tensor([2, 0, 0, 1, 2])
    baseline = torch.full((1, 3, 1, 1), 0.2) if kind == "grey" else 0.5 * images.flip(3)
    masks = torch.rand(5, 1, 8, 10, generator=torch.Generator().manual_seed(0))
    consistency = loss(images, baseline, relative=relative, activation=activation)
    e = next(consistency.noise_backgrounds(1))
    found = consistency.gradient(masks, index, e)
    network = smooth().requires_grad_(False)

    def f(image: Tensor, target: Tensor) -> Tensor:
        logits = network(image[None])[0]
        return (logits.softmax(0) if activation == "probability" else logits)[target]

    for row, b in enumerate(index.tolist()):
        x, replacement, p = images[b], baseline[b % len(baseline)].expand_as(images[b]), TARGETS[b]
        m = masks[row].clone().requires_grad_()
        scale = f(x, p) - f(replacement, p) if relative else 1.0
        (((f(replacement + e[0] + m * (x - replacement - e[0]), p) - f(x, p)) / scale) ** 2).backward()
        torch.testing.assert_close(found[row], m.grad, rtol=1e-8, atol=1e-12)


def test_a_background_matters_where_nothing_is_shown() -> None:
    images, index, hidden = pictures(2, 12), torch.arange(2), torch.zeros(2, 1, 12, 12)
    found = loss(images, torch.zeros(1, 3, 1, 1))
    one, two = (found.gradient(hidden, index, next(found.noise_backgrounds(1))) for _ in range(2))
    assert (one - two).abs().max() > 0.1 * one.abs().max()


@pytest.mark.parametrize("chosen", [[0], [2], [4, 2], [4, 3, 2, 1, 0], [1, 1, 2]], ids=str)
def test_the_other_images_change_no_bit_of_a_map(chosen: list[int]) -> None:
    classifier, images, targets = Classifier.from_module(smooth()), pictures(5), torch.tensor([1, 0, 2, 1, 0])
    together = explain(classifier, images, "dm", targets=targets, **SETTINGS)
    found = explain(classifier, images[chosen], "dm", targets=targets[chosen], **SETTINGS)
    assert torch.equal(found.maps, together.maps[chosen])


class Scaled(nn.Module):
    """The smooth network on images in another unit."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.network, self.unit = smooth(), unit

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images / self.unit)
        return logits


def test_the_noise_is_in_units_of_the_networks_input() -> None:
    """A network that takes values from -1024 to 1024 has the maps of the one that takes them divided by their spread."""
    preprocess = Preprocess((16, 16), None, (0.0,) * 3, (1.0,) * 3, value_range=(-1024, 1024))
    images = pictures(2)
    plain = explain(Classifier.from_module(smooth()), images, "dm", **SETTINGS)
    scaled = Classifier.from_module(Scaled(preprocess.spread), preprocess)
    assert preprocess.spread > 100
    found = explain(scaled, images * preprocess.spread, "dm", **SETTINGS)
    torch.testing.assert_close(found.maps, plain.maps, rtol=0, atol=1e-3)
    without = explain(Classifier.from_module(Scaled(preprocess.spread)), images * preprocess.spread, "dm", **SETTINGS)
    assert (without.maps - plain.maps).abs().amax() > 0.01, "noise of one unit would be none at all"
