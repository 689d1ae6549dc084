from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hdm_core import Classifier, explain
from hdm_core.methods.rise import RandomMasks, RiseSettings
from tests.support import reference
from tests.support.tiny_networks import pictures, smooth

pytestmark = pytest.mark.usefixtures("double")
SETTINGS = RiseSettings(masks=10, cells=3, keep_probability=0.4)


def slow_masks(height: int, width: int) -> Tensor:
    """Compute the masks of SETTINGS one by one."""
    generator = torch.Generator().manual_seed(0)
    grids = torch.rand(10, 3, 3, generator=generator, dtype=torch.float32) < 0.4
    cells = [math.ceil(side / 3) for side in (height, width)]
    tops, lefts = (torch.randint(cell, (10,), generator=generator).tolist() for cell in cells)
    large = [reference.g(grid.double(), 4 * cells[0], 4 * cells[1]) for grid in grids]
    return torch.stack([mask[top : top + height, left : left + width] for mask, top, left in zip(large, tops, lefts, strict=True)])


@pytest.mark.parametrize(("height", "width"), [(12, 12), (11, 8), (2, 5)])
def test_masks_equal_the_reference_however_they_are_sliced(height: int, width: int) -> None:
    masks, expected = RandomMasks(SETTINGS, height, width, torch.zeros(1)), slow_masks(height, width)
    assert len(masks) == 10
    for size in (1, 3, 10):
        found = torch.cat([masks[start : start + size] for start in range(0, 10, size)])
        torch.testing.assert_close(found[:, 0], expected)


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_rise_equals_the_reference(batch: int) -> None:
    network, images, targets = smooth(), pictures(3, 11, 8), [2, 0, 1]
    result = explain(Classifier.from_module(network), images, "rise", targets=targets, batch=batch, **SETTINGS.model_dump())
    for b, image in enumerate(images):
        total = torch.zeros(11, 8)
        for mask in slow_masks(11, 8):
            total += network((mask * image)[None]).softmax(1)[0, targets[b]].detach() * mask / (10 * 0.4)
        torch.testing.assert_close(result.maps[b].double(), reference.N(total), rtol=0, atol=1e-6)
    assert result.passes == 10


def test_masks_show_the_share_of_pixels_that_they_should() -> None:
    masks = RandomMasks(RiseSettings(masks=2000, keep_probability=0.3), 28, 28, torch.zeros(1))[:]
    assert masks.min() == 0
    assert masks.max() == 1
    torch.testing.assert_close(masks.mean(0), torch.full((1, 28, 28), 0.3), rtol=0, atol=0.05)


def test_masks_depend_neither_on_earlier_draws_nor_on_the_dtype() -> None:
    first = RandomMasks(SETTINGS, 12, 12, torch.zeros(1))[:]
    torch.rand(3)
    torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(RandomMasks(SETTINGS, 12, 12, torch.zeros(1))[:], first.float())
