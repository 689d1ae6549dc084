"""LeGrad against loops over heads, queries and keys, and the networks that it refuses."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, check, explain
from hdm_core.masking.ops import normalise, upsample
from hdm_core.testing.families import FAMILIES, transformer
from hdm_core.testing.networks import AttentionNetwork, assert_unchanged, attention_network, sample_images, snapshot
from tests.support.transformer_reference import blocks_of, logits_of

pytestmark = pytest.mark.usefixtures("double")
Pool = Literal["mean", "network"]


def by_loops(network: AttentionNetwork, image: Tensor, target: int, pool: Pool, last: int) -> Tensor:
    """Return the sum over blocks of the mean over heads and queries of the positive gradients, (rows, columns)."""
    rows, columns = (side // 4 for side in image.shape[1:])
    evidence = torch.zeros(rows, columns)
    for attention, tokens in blocks_of(network, image)[-last:]:
        score = logits_of(network, tokens.mean(0) if pool == "mean" else tokens[0])[target]
        (gradient,) = torch.autograd.grad(score, attention)
        heads, count, _ = gradient.shape
        for row in range(rows):
            for column in range(columns):
                key = 1 + row * columns + column  # the first token is the class's
                total = 0.0
                for head in range(heads):
                    for query in range(count):
                        total += max(0.0, float(gradient[head, query, key]))
                evidence[row, column] += total / (heads * count)
    return evidence


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
@pytest.mark.parametrize(("settings", "pool", "last"), [({}, "mean", 2), ({"pool": "network"}, "network", 2), ({"blocks": 1}, "mean", 1)])
def test_legrad_is_that_of_loops(settings: dict[str, Any], pool: Pool, last: int, size: tuple[int, int]) -> None:
    network, images = attention_network(), sample_images(3, *size)
    found = explain(Classifier.from_module(network), images, "legrad", targets=[0, 1, 2], batch=2, **settings)
    assert found.status == ["ok"] * 3
    for b in range(3):
        evidence = by_loops(network, images[b], b, pool, last)
        expected = normalise(upsample(evidence[None, None], *size))[0, 0]
        torch.testing.assert_close(found.maps[b].double(), expected, rtol=0, atol=1e-6)


def test_more_blocks_than_the_network_has_are_all_of_them() -> None:
    network, images = attention_network(), sample_images(2)
    assert torch.equal(explain(network, images, "legrad", blocks=9).maps, explain(network, images, "legrad").maps)


def test_the_negative_gradients_of_one_class_are_the_positive_ones_of_its_opposite() -> None:
    """With two classes of opposite weights, a patch that speaks for neither in any head and block is in neither map."""
    network, images = attention_network(2), sample_images(2)
    with torch.no_grad():
        network.head.weight[1] = -network.head.weight[0]
        network.head.bias.zero_()
    maps = [explain(network, images, "legrad", targets=target).maps for target in (0, 1)]
    assert not torch.allclose(*maps, atol=1e-2)


def test_the_pre_flight_reports_the_blocks() -> None:
    network = attention_network()
    before = snapshot(network)
    result = check(network, sample_images(2, 16, 24), ["legrad", "attention_rollout"])
    assert result.usable == ("legrad", "attention_rollout")
    (finding,) = (each for each in result.findings if each.methods)
    assert finding.text == "2 blocks attend over 25 tokens, of which 4 x 6 are patches"
    assert_unchanged(network, before)


def test_a_network_of_one_block_is_explained() -> None:
    torch.set_default_dtype(torch.float32)  # the fixture restores it
    result = explain(transformer(), sample_images(2, 32), "legrad")
    assert result.status == ["ok", "ok"]


# What is refused


class Windows(AttentionNetwork):
    """Attention within windows of two rows, as Swin's."""

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        windows = self.blocks(tokens.reshape(-1, 8, 8)).reshape(len(images), -1, 8)
        return self.head(self.norm(windows).mean(1))


class Pooled(AttentionNetwork):
    """Blocks of fewer and fewer tokens, as PiT's."""

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.blocks[0](self.patches(images).flatten(2).mT)
        tokens = self.blocks[1](tokens.reshape(len(images), -1, 4, 8).mean(2))
        return self.head(self.norm(tokens).mean(1))


class Skipping(AttentionNetwork):
    """Logits that depend on the first block beside the last."""

    def forward(self, images: Tensor) -> Tensor:
        first = self.blocks[0](self.patches(images).flatten(2).mT)
        return self.head(self.norm(self.blocks[1](first)).mean(1)) + self.head(first.mean(1))


class Repeated(AttentionNetwork):
    """One block that is called twice."""

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.blocks[0](self.blocks[0](self.patches(images).flatten(2).mT))
        return self.head(self.norm(tokens).mean(1))


class Shuffled(AttentionNetwork):
    """Patches from the last to the first."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patches(images).flatten(2).mT.flip(1))).mean(1))


class Counting(AttentionNetwork):
    """A head that expects as many tokens as there are images."""

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.blocks(self.patches(images).flatten(2).mT))
        return self.head((tokens.reshape(len(images), -1, 8)).mean(1)) + 0 * images.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize("method", ["legrad", "attention_rollout"])
@pytest.mark.parametrize(
    ("build", "words"),
    [
        (FAMILIES["resnet"], "this network has no attention of tokens to each other"),
        (Windows, "is within windows"),
        (Pooled, "attend over different numbers of tokens"),
        (Skipping, "depend on more than the tokens of its last block"),
        (Repeated, "attends more than once"),
        (Shuffled, "follow no grid of patches"),
        (Counting, "depend on more than the tokens of its last block"),
    ],
)
def test_a_network_without_blocks_over_all_patches_is_refused_in_one_line(build: Any, words: str, method: str) -> None:
    torch.manual_seed(0)
    network: nn.Module = build().to(torch.float64).eval()
    before = snapshot(network)
    with pytest.raises(ValueError, match=words) as caught:
        explain(network, sample_images(2, 32), method)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("choose another method")
    result = check(network, sample_images(2, 32), [method])
    assert result.usable == ()
    assert words in result.refused
    assert_unchanged(network, before)
