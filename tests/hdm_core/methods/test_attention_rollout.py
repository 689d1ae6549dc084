"""Attention rollout against explicit products, by hand and in loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hdm_core import Classifier, explain
from hdm_core.masking.ops import normalise, upsample
from hdm_core.testing.networks import AttentionNetwork, attention_network, sample_images
from tests.support.transformer_reference import blocks_of

pytestmark = pytest.mark.usefixtures("double")


def by_loops(maps: list[Tensor], fusion: str, residual: float) -> list[list[float]]:
    """Return A_L ... A_1 of attention maps (heads, N, N), number by number."""
    count = maps[0].shape[1]
    rollout = [[float(i == j) for j in range(count)] for i in range(count)]
    for attention in maps:
        mixing = []
        for i in range(count):
            row = []
            for j in range(count):
                heads = [float(head[i, j]) for head in attention]
                fused = {"mean": sum(heads) / len(heads), "max": max(heads), "min": min(heads)}[fusion]
                row.append(residual * (i == j) + (1 - residual) * fused)
            mixing.append([value / sum(row) for value in row])
        rollout = [[sum(mixing[i][k] * rollout[k][j] for k in range(count)) for j in range(count)] for i in range(count)]
    return rollout


class Averaging(AttentionNetwork):
    """A head that averages all tokens, or the patches alone."""

    first = 0

    def forward(self, images: Tensor) -> Tensor:
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), self.patches(images).flatten(2).mT], 1)
        return self.head(self.norm(self.blocks(tokens))[:, self.first :].mean(1))


class AveragingPatches(Averaging):
    first = 1


def build(kind: type[AttentionNetwork]) -> AttentionNetwork:
    network = kind()
    network.load_state_dict(attention_network().state_dict())
    return network.eval()


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
@pytest.mark.parametrize("settings", [{}, {"fusion": "max"}, {"fusion": "min"}, {"residual": 0.0}, {"residual": 0.8}])
@pytest.mark.parametrize(
    ("kind", "rows"),
    [(AttentionNetwork, [0]), (Averaging, None), (AveragingPatches, slice(1, None))],
    ids=["class token", "all", "patches"],
)
def test_the_rollout_is_that_of_loops(kind: type[AttentionNetwork], rows: Any, settings: dict[str, Any], size: tuple[int, int]) -> None:
    network, images = build(kind), sample_images(2, *size)
    found = explain(Classifier.from_module(network), images, "attention_rollout", batch=1, **settings)
    assert found.status == ["ok", "ok"]
    for b in range(2):
        maps = [attention.detach() for attention, _ in blocks_of(network, images[b])]
        rollout = torch.tensor(by_loops(maps, settings.get("fusion", "mean"), settings.get("residual", 0.5)))
        evidence = (rollout if rows is None else rollout[rows]).mean(0)[1:].reshape(size[0] // 4, size[1] // 4)
        expected = normalise(upsample(evidence[None, None], *size))[0, 0]
        torch.testing.assert_close(found.maps[b].double(), expected, rtol=0, atol=1e-6)


def test_equal_attention_in_one_block_is_a_flat_map() -> None:
    """Queries of zero attend to all tokens alike: each patch has 0.5 / N in the row of the class token."""
    network, images = attention_network(), sample_images(2)
    with torch.no_grad():
        for block in network.blocks:
            block.attention.in_proj_weight[:8] = 0
            block.attention.in_proj_bias[:8] = 0
    assert explain(network, images, "attention_rollout").status == ["flat", "flat"]


def test_the_map_does_not_depend_on_the_class() -> None:
    network, images = attention_network(), sample_images(2)
    maps = [explain(network, images, "attention_rollout", targets=target).maps for target in range(3)]
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])
