"""Networks of timm, where it is installed."""

from __future__ import annotations

import importlib
import math

from torch import nn
from torchvision.transforms import InterpolationMode

from hdm_core.preprocess import Preprocess
from hdm_core.sources.checkpoint import check_arch


def build_timm(arch: str, weights: str | None, classes: int | None) -> tuple[nn.Module, Preprocess]:
    """The network of this name with a head for so many classes, and the preprocessing that timm's configuration tells.

    timm's other ways to crop, which change the picture's proportions, are replaced by the centre crop: a map must lie on the photograph.

    Raises:
        ImportError: if timm is not installed.
        OSError: if the weights cannot be had.
        ValueError: if there is no such network or tag, or it does not take square images.
    """
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise ImportError("timm is not installed: pip install 'hdm-pipeline[timm]'") from None
    check_arch(arch, timm.list_models(), "timm")
    name = arch if weights in (None, "DEFAULT") else f"{arch}.{weights}"
    try:
        module: nn.Module = timm.create_model(name, pretrained=weights is not None, num_classes=classes)
    except RuntimeError as error:  # also: there are no pretrained weights
        raise ValueError(f"timm cannot make {name}: {error}") from None
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
