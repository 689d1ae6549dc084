"""Networks and images that need no download."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torchvision.models import get_model_weights

from hdm_core import Classifier, Preprocess
from hdm_core.sources.torchvision import PACKAGED
from hdm_core.testing.families import FAMILIES

_PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "rocket")  # files of the scikit-image package itself


def build(name: str, side: int, device: torch.device) -> Classifier:
    """Build a classifier of square images on a device.

    Its weights are ImageNet's where they are on this machine. Else they are random, with the statistics of the photographs in its batch
    normalisations: with others, activations vanish or grow from layer to layer.

    Args:
        name: a torchvision network, or small_ and a family of `hdm_core.testing.families`.
    """
    preprocess = Preprocess(resize=side * 256 // 224, crop=side)
    if name.startswith("small_"):
        return Classifier(FAMILIES[name.removeprefix("small_")](), preprocess, name=name).to(device)
    weights = stored_weights(name)
    classifier = Classifier.from_torchvision(name, weights, preprocess)
    if weights is None:
        _take_statistics(classifier.module, photographs(classifier))
    return classifier.to(device)


def stored_weights(arch: str) -> str | None:
    """Return a network's weights entry whose file is on this machine; None if none is."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for entry in get_model_weights(arch):
        file = Path(urlparse(entry.url).path).name
        if (cache / file).exists() or (file in PACKAGED and _is_installed(PACKAGED[file][0])):
            return str(entry.name)
    return None


def photographs(classifier: Classifier) -> Tensor:
    """Return four photographs (4, 3, H, W) as the classifier takes them."""
    return classifier.prepare([Image.fromarray(getattr(data, name)()).convert("RGB") for name in _PHOTOGRAPHS])


def images_for(classifier: Classifier, count: int) -> Tensor:
    """Return different images (count, 3, H, W): shifted and flipped photographs."""
    originals = photographs(classifier)
    shifted = [originals[i % 4].roll((7 * i, 13 * i), (1, 2)) for i in range(count)]
    return torch.stack([image.flip(2) if i % 8 > 3 else image for i, image in enumerate(shifted)])


@torch.no_grad()
def _take_statistics(network: nn.Module, images: Tensor) -> None:
    """Set the statistics of all batch normalisations to those of the images."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    network(images)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
