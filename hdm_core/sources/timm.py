"""Networks of timm, an optional dependency."""

from __future__ import annotations

import importlib
import math

from torch import nn
from torchvision.transforms import InterpolationMode

from hdm_core.preprocess import Preprocess
from hdm_core.sources.checkpoint import check_arch


def build_timm(arch: str, weights: str | None, classes: int | None) -> tuple[nn.Module, Preprocess]:
    """Build a timm network with a head of `classes` logits, and its preprocessing.

    The preprocessing comes from timm's configuration. Crop modes of timm that change the image's proportions are replaced by the centre
    crop, because a map must align with the photograph.

    Raises:
        ImportError: if timm is not installed.
        OSError: if the weights cannot be downloaded.
        ValueError: if timm has no such network or tag, or it does not take square images.
    """
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise ImportError("timm is not installed: pip install 'hdm-pipeline[timm]'") from None
    check_arch(arch, timm.list_models(), "timm")
    name = arch if weights in (None, "DEFAULT") else f"{arch}.{weights}"
    try:
        module: nn.Module = timm.create_model(name, pretrained=weights is not None, num_classes=classes)
    except RuntimeError as error:  # also raised where there are no pretrained weights
        raise ValueError(f"timm cannot build {name}: {error}") from None
    config = timm.data.resolve_data_config({}, model=module)
    _, height, width = config["input_size"]
    if height != width:
        raise ValueError(f"{arch} takes images of {height} x {width}; they must be square")
    return module, Preprocess(
        resize=math.floor(width / config["crop_pct"]),
        crop=width,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=InterpolationMode(config["interpolation"]),
    )
