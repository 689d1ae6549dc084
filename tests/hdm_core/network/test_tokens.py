"""The grid of patches among tokens, and the layer of tokens that a CAM takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.methods.cam import CAMSettings, target_layer
from hdm_core.network.axes import locate
from hdm_core.network.default_layer import default_layer
from hdm_core.network.hooks import activations_and_logits, forward_to
from hdm_core.network.target_layer import TargetLayer
from hdm_core.network.tokens import TokenGrid, find_grid
from tests.support.tiny_networks import assert_unchanged, pictures, snapshot

METHODS = ["grad_cam", "grad_cam_pp", "score_cam", "ablation_cam", "xgrad_cam", "eigen_cam", "layer_cam"]


class Tokens(nn.Module):
    """Network of tokens: patches of 4 x 4, other tokens around them, one attention, and the pooling and order of the test."""

    def __init__(
        self, before: int = 0, after: int = 0, pool: Callable[[Tensor], Tensor] = lambda x: x.mean(1), order: Tensor | None = None
    ) -> None:
        super().__init__()
        self.patches, self.order, self.pool = nn.Conv2d(3, 8, 4, stride=4), order, pool
        self.before, self.after = nn.Parameter(torch.randn(1, before, 8)), nn.Parameter(torch.randn(1, after, 8))
        self.start, self.norm, self.attention, self.end = (
            nn.Identity(),
            nn.LayerNorm(8),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Tanh(),
        )
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = tokens if self.order is None else tokens[:, self.order]
        tokens = self.start(torch.cat([self.before.expand(len(images), -1, -1), tokens, self.after.expand(len(images), -1, -1)], 1))
        normed = self.norm(tokens)
        return self.head(self.pool(self.end(tokens + self.attention(normed, normed, normed)[0])))


def network_of(before: int = 0, after: int = 0, **arguments: object) -> Tokens:
    torch.manual_seed(1)
    network = Tokens(before, after, **arguments).eval().requires_grad_(False)  # type: ignore[arg-type]
    network.head.weight.mul_(4)
    return network


# The grid


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (20, 12), (18, 27)])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (2, 0), (5, 0), (0, 1), (1, 4)])
def test_the_patches_are_found_among_other_tokens(before: int, after: int, size: tuple[int, int]) -> None:
    network, images = network_of(before, after), pictures(2, *size)
    before_snapshot = snapshot(network)
    grid = TokenGrid(size[0] // 4, size[1] // 4, before, after)
    for layer in (network.start, network.norm, network.end):
        assert locate(network, layer, images) == TargetLayer(layer, (3, 1, 2), grid)
    assert_unchanged(network, before_snapshot)


def test_maps_are_the_patches_of_the_tokens_and_go_back_to_their_place() -> None:
    grid, tokens = TokenGrid(2, 3, 1, 2), torch.randn(4, 9, 5)
    assert grid.tokens == 9
    maps = grid.to_maps(tokens)
    for b in range(4):
        for k in range(5):
            for row in range(2):
                for column in range(3):
                    assert maps[b, k, row, column] == tokens[b, 1 + 3 * row + column, k]
    assert torch.equal(grid.from_maps(maps, tokens), tokens)
    changed = grid.from_maps(0 * maps, tokens)
    assert torch.equal(changed[:, [0, 7, 8]], tokens[:, [0, 7, 8]])
    assert not changed[:, 1:7].any()


@pytest.mark.parametrize(
    "order", [list(reversed(range(16))), [row + 4 * column for row in range(4) for column in range(4)], [*range(4, 16), *range(4)]]
)
def test_patches_in_another_order_are_refused(order: list[int]) -> None:
    network = network_of(1, order=torch.tensor(order))
    assert find_grid(network, network.norm, 17, pictures(1, 16)) is None
    with pytest.raises(
        ValueError, match=r"tokens \(B, 17, 8\) follow no grid of patches of the image's 16 x 16 pixels: name another"
    ) as caught:
        explain(Classifier.from_module(network), pictures(1, 16), "grad_cam", layer="norm")
    assert "\n" not in str(caught.value)


def test_an_order_that_changes_inside_the_network_is_refused_there_and_only_there() -> None:
    class Flipped(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            tokens = self.start(self.patches(images).flatten(2).mT)
            return self.head(self.norm(tokens.flip(1)).mean(1))

    torch.manual_seed(0)
    network = Flipped().eval()
    assert find_grid(network, network.start, 16, pictures(1, 16)) == TokenGrid(4, 4)
    assert find_grid(network, network.norm, 16, pictures(1, 16)) is None


def test_a_number_of_tokens_that_is_no_grid_is_refused() -> None:
    class Pooled(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.norm(F.adaptive_avg_pool1d(self.patches(images).flatten(2), 3).mT).mean(1))

    torch.manual_seed(0)
    network = Pooled().eval()
    assert find_grid(network, network.norm, 3, pictures(1, 32)) is None


@pytest.mark.parametrize("count", [4, 5, 9, 16])
def test_tokens_that_belong_to_no_place_are_no_grid_by_chance(count: int) -> None:
    """Four such tokens follow both digits of a grid of 2 x 2 in one of 256 networks, for one draw of noise."""

    class Latent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(3 * 16 * 16, count * 8), nn.Linear(8, 3)
            self.latent = nn.Tanh()

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.latent(self.mix(images.flatten(1)).reshape(-1, count, 8)).mean(1))

    for seed in range(30):
        torch.manual_seed(seed)
        network = Latent().eval()
        assert find_grid(network, network.latent, count, pictures(1, 16)) is None, seed


def test_where_a_layer_mixes_all_patches_the_first_tokens_decide() -> None:
    class Mixed(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            tokens = self.start(self.patches(images).flatten(2).mT)
            return self.head(self.norm(tokens.mean(1, keepdim=True) + 1e-3 * tokens.roll(3, 1) + 1e-3 * tokens.roll(7, 1)).square().mean(1))

    torch.manual_seed(0)
    network = Mixed().eval()
    grid = find_grid(network, network.norm, 16, pictures(1, 16))
    assert grid in (None, TokenGrid(4, 4))  # never another place
    assert find_grid(network, network.start, 16, pictures(1, 16)) == TokenGrid(4, 4)


# The layer


@pytest.mark.parametrize(
    ("pool", "layer"),
    [(lambda x: x[:, 0], "norm"), (lambda x: x.mean(1), "end"), (lambda x: x[:, 1:].mean(1), "end"), (lambda x: x[:, 1:].amax(1), "end")],
    ids=["class token", "mean", "mean of patches", "maximum"],
)
def test_the_default_is_the_last_layer_whose_patches_matter(pool: Callable[[Tensor], Tensor], layer: str) -> None:
    network, images = network_of(1, pool=pool), pictures(2, 16)
    assert default_layer(network, images).module is network.get_submodule(layer)
    last = forward_to(network, locate(network, network.end, images), images)
    slope = torch.autograd.grad(last.logits.sum(), last.activations, allow_unused=True)[0]
    assert bool(slope is not None and slope.any()) == (layer == "end")


def test_the_default_is_chosen_once_for_a_size() -> None:
    network, calls = network_of(1, pool=lambda x: x[:, 0]), []
    network.register_forward_hook(lambda _module, _inputs, _output: calls.append(1))
    first = default_layer(network, pictures(1, 16))
    made = len(calls)
    assert default_layer(network, pictures(3, 16)) == first
    assert len(calls) == made
    default_layer(network, pictures(1, 24))
    assert len(calls) > made


def test_tokens_without_any_grid_are_refused_once_and_for_all_calls() -> None:
    network = network_of(0, pool=lambda x: x.mean(1), order=torch.arange(15, -1, -1))
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"classifies from tokens, and in no layer they lie on a grid of patches .*: name a layer with"
        ):
            target_layer(network, CAMSettings(layer=None), pictures(1, 16))


@pytest.mark.parametrize(
    ("arch", "arguments", "layer", "grid"),
    [
        ("vit_tiny_patch16_224", {}, "blocks.11.norm1", TokenGrid(14, 14, 1)),
        ("deit_tiny_distilled_patch16_224", {"depth": 2}, "blocks.1.norm1", TokenGrid(14, 14, 2)),
        ("vit_medium_patch16_reg4_gap_256", {"depth": 2, "embed_dim": 64, "num_heads": 2}, "blocks", TokenGrid(16, 16, 4)),
        ("eva02_tiny_patch14_224", {"depth": 2}, "blocks.1", TokenGrid(16, 16, 1)),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}, "norm", None),
    ],
)
def test_timms_transformers(arch: str, arguments: dict[str, Any], layer: str, grid: TokenGrid | None) -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    torch.manual_seed(0)
    network = timm.create_model(arch, **arguments).eval().requires_grad_(False)
    found = default_layer(network, torch.zeros(1, *network.pretrained_cfg["input_size"]))
    assert (found.module, found.grid) == (network.get_submodule(layer), grid)


def test_patches_that_overlap_and_start_half_a_patch_before_the_image_are_found() -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    torch.manual_seed(0)
    network = timm.create_model("xcit_nano_12_p16_224").eval().requires_grad_(False)
    assert locate(network, network.blocks[-1], torch.zeros(1, 3, 224, 224)).grid == TokenGrid(14, 14)


def test_an_image_that_is_not_square_has_a_grid_of_its_own_sides() -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=(160, 96), num_classes=5).eval()
    assert default_layer(network, torch.zeros(1, 3, 160, 96)).grid == TokenGrid(10, 6, 1)
    result = explain(network, torch.randn(1, 3, 160, 96), "grad_cam")
    assert (result.maps.shape, result.status) == ((1, 160, 96), ["ok"])


def test_torchvisions_transformers() -> None:
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=4).eval()
    nn.init.normal_(network.heads.head.weight)
    found = default_layer(network, torch.zeros(1, 3, 64, 64))
    assert (found.module, found.grid) == (network.encoder.layers[1].ln_1, TokenGrid(4, 4, 1))


# The maps


@pytest.mark.parametrize("method", METHODS)
def test_a_cam_of_tokens_is_that_of_maps(method: str) -> None:
    """A network whose tokens are flattened maps has the CAMs of the network that leaves them as maps."""

    class Both(nn.Module):
        def __init__(self, tokens: bool) -> None:
            super().__init__()
            self.tokens, self.conv, self.act, self.head = tokens, nn.Conv2d(3, 7, 4, stride=4), nn.Tanh(), nn.Linear(7, 3)
            self.layer = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            maps = self.act(self.conv(images))
            if self.tokens:
                return self.head(self.layer(maps.flatten(2).mT).square().mean(1))
            return self.head(self.layer(maps).square().mean((2, 3)))

    networks = []
    for tokens in (True, False):
        torch.manual_seed(3)
        networks.append(Both(tokens).eval())
        with torch.no_grad():
            networks[-1].conv.weight.mul_(3)
    images = pictures(3, 24, 16)
    found, expected = (explain(network, images, method, targets=[0, 1, 2], layer="layer", batch=2) for network in networks)
    assert found.status == expected.status
    assert "ok" in found.status
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-5)
    assert found.passes == expected.passes


def test_other_tokens_are_neither_shown_nor_ablated() -> None:
    """Ablation of a patch's channel leaves the class token as it is: by hand, one forward for each channel."""
    network, images = network_of(1), pictures(2, 16)
    activations, logits = activations_and_logits(network, network.norm, images)
    assert activations.shape == (2, 8, 4, 4)
    tokens = network.start(torch.cat([network.before.expand(2, -1, -1), network.patches(images).flatten(2).mT], 1))
    normed = network.norm(tokens)
    assert torch.equal(activations, normed[:, 1:].mT.reshape(2, 8, 4, 4))
    drops = torch.zeros(2, 8)
    for k in range(8):
        ablated = normed.clone()
        ablated[:, 1:, k] = 0
        answer = network.head(network.pool(network.end(tokens + network.attention(ablated, ablated, ablated)[0])))
        drops[:, k] = logits[:, 1] - answer[:, 1]
    cams = torch.relu((drops[:, :, None, None] * activations).sum(1))
    found = explain(network, images, "ablation_cam", targets=1, layer="norm")
    enlarged = F.interpolate(cams[:, None], size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    for one, other in zip(found.maps, enlarged, strict=True):
        torch.testing.assert_close(one, (other - other.min()) / (other.max() - other.min()), rtol=0, atol=1e-5)
