"""Tokens and attention of Hugging Face's image classifiers, made small, with random weights."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdm_core import METHODS, explain
from hdm_core.network.attention import AttentionReader
from hdm_core.network.default_layer import default_layer
from hdm_core.network.tokens import TokenGrid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by its imports
    transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")
SIDE = 64
VIT = {"image_size": SIDE, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SWIN = {"image_size": SIDE, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
DINO = {name: value for name, value in VIT.items() if name != "intermediate_size"}


class Logits(nn.Module):
    """A classifier of transformers that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def build(name: str, **settings: Any) -> Logits:
    torch.manual_seed(0)
    if name in ("CLIP", "Siglip"):
        settings = {"vision_config": VIT, "text_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}}
    config = getattr(transformers, f"{name}Config")(**settings)
    return Logits(getattr(transformers, f"{name}ForImageClassification")(config)).eval().requires_grad_(False)


TOKENS = [
    ("ViT", VIT, "model.vit.layers.1.layernorm_before", TokenGrid(4, 4, 1)),
    ("DeiT", VIT, "model.deit.layers.1.layernorm_before", TokenGrid(4, 4, 2)),
    ("Beit", VIT, "model.beit.layers.1", TokenGrid(4, 4, 1)),
    ("Dinov2WithRegisters", DINO, "model.dinov2_with_registers.layernorm", TokenGrid(4, 4, 5)),
    ("Swin", SWIN, "model.swin.layernorm", TokenGrid(8, 8)),
    ("CLIP", {}, "model.vision_model.encoder.layers.1", TokenGrid(4, 4, 1)),
    ("Siglip", {}, "model.vision_model.post_layernorm", TokenGrid(4, 4)),
]


@pytest.mark.parametrize(("name", "settings", "layer", "grid"), TOKENS)
def test_the_layer_and_its_patches_are_found(name: str, settings: dict[str, Any], layer: str, grid: TokenGrid) -> None:
    network = build(name, **settings)
    found = default_layer(network, torch.zeros(1, 3, SIDE, SIDE))
    assert (found.module, found.grid) == (network.get_submodule(layer), grid)


@pytest.mark.parametrize("method", ["grad_cam", "layer_cam", *(name for name, entry in METHODS.items() if entry.needs_attention)])
@pytest.mark.parametrize(("name", "settings", "layer", "grid"), TOKENS)
def test_a_classifier_is_explained_or_refused(name: str, settings: dict[str, Any], layer: str, grid: TokenGrid, method: str) -> None:
    network, images = build(name, **settings), torch.randn(2, 3, SIDE, SIDE)
    if name == "Swin" and METHODS[method].needs_attention:
        with pytest.raises(ValueError, match="within windows"):
            explain(network, images, method)
        return
    assert set(explain(network, images, method).status) <= {"ok", "flat"}


@pytest.mark.parametrize("name", ["ViT", "DeiT"])
def test_the_maps_that_are_read_are_those_that_the_network_reports(name: str) -> None:
    network, images, maps = build(name, **VIT), torch.randn(2, 3, SIDE, SIDE), []
    with torch.no_grad(), AttentionReader(maps.append):
        logits = network(images)  # by torch's fused attention
    network.model.set_attn_implementation("eager")
    with torch.no_grad():
        reported = network.model(images, output_attentions=True)
    torch.testing.assert_close(logits, reported.logits, rtol=0, atol=1e-5)
    assert len(maps) == len(reported.attentions) == 2
    for one, other in zip(maps, reported.attentions, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
