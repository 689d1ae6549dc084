"""Folders of Hugging Face's image classifiers: small networks with random weights, as `save_pretrained` writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

SIDE = 64
LABELS = ("ant", "bee", "cat", "dog")
_VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 100}
_TEXT |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_SQUARE = {"height": SIDE, "width": SIDE}


def labels(names: Sequence[str] = LABELS) -> dict[str, Any]:
    return {"num_labels": len(names), "id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def _make(library: Any, kind: str, config: dict[str, Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = getattr(library, f"{kind}Config")(**labels(), **config)
        return getattr(library, f"{kind}ForImageClassification")(made)


def _two_towers(library: Any, kind: str) -> Any:
    vision = {**_VISION, "image_size": SIDE, "patch_size": 16, "projection_dim": 16}
    return _make(library, kind, {"vision_config": vision, "text_config": _TEXT})


_VIT = {**_VISION, "image_size": SIDE, "patch_size": 16}
_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 32]}
# Name -> network, processor and its settings. ConvNeXT's processor crops below 384 and resizes exactly from there on.
CHECKPOINTS: dict[str, tuple[Callable[[Any], Any], str, dict[str, Any]]] = {
    "vit": (lambda t: _make(t, "ViT", _VIT), "ViT", {"size": _SQUARE}),
    "deit": (lambda t: _make(t, "DeiT", _VIT), "DeiT", {"size": {"height": 72, "width": 72}, "crop_size": _SQUARE}),
    "swin": (
        lambda t: _make(
            t, "Swin", {"image_size": SIDE, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
        ),
        "ViT",
        {"size": _SQUARE, "resample": 3},
    ),
    "convnext": (lambda t: _make(t, "ConvNext", _STAGES), "ConvNext", {"size": {"shortest_edge": SIDE}, "crop_pct": 0.875}),
    "convnext384": (lambda t: _make(t, "ConvNext", _STAGES), "ConvNext", {"size": {"shortest_edge": 384}}),
    "resnet": (
        lambda t: _make(t, "ResNet", {**_STAGES, "embedding_size": 8, "layer_type": "basic"}),
        "ConvNext",
        {"size": {"shortest_edge": SIDE}, "crop_pct": 0.95, "resample": 2},
    ),
    "beit": (lambda t: _make(t, "Beit", _VIT), "Beit", {"size": _SQUARE}),
    "siglip": (lambda t: _two_towers(t, "Siglip"), "Siglip", {"size": _SQUARE}),
    "clip": (lambda t: _two_towers(t, "CLIP"), "CLIP", {"size": {"shortest_edge": SIDE}, "crop_size": _SQUARE}),
}


def save(name: str, folder: Path) -> Path:
    """Save one of `CHECKPOINTS` to a folder, and return it."""
    import transformers

    make, kind, settings = CHECKPOINTS[name]
    make(transformers).save_pretrained(folder)
    save_processor(kind, folder, settings)
    return folder


def save_processor(kind: str, folder: Path, settings: dict[str, Any]) -> None:
    import transformers

    getattr(transformers, f"{kind}ImageProcessor")(**settings).save_pretrained(folder)


def save_vit(folder: Path, names: Sequence[str]) -> None:
    """Save a small ViT of 224 x 224 pixels and its processor."""
    import transformers

    config = transformers.ViTConfig(**_VISION, image_size=224, patch_size=32, **labels(names))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
    save_processor("ViT", folder, {"size": {"height": 224, "width": 224}})
