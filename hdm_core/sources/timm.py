"""Networks of timm, an optional dependency."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from hdm_core.geometry import Size
from hdm_core.preprocess import Preprocess
from hdm_core.sources.checkpoint import check_arch, check_arguments
from hdm_core.sources.state_dict import fit_state, read_state
from hdm_core.sources.state_keys import match_keys


def build_timm(
    arch: str, weights: str | None, classes: int | None, arguments: Mapping[str, Any] | None = None
) -> tuple[nn.Module, Preprocess]:
    """Build a timm network with a head of `classes` logits, and its preprocessing.

    The preprocessing is that of timm's configuration, see `follow_timm`, its size from the argument `img_size` if that is given.

    Raises:
        ImportError: if timm is not installed.
        OSError: if the weights cannot be downloaded.
        ValueError: if timm has no such network or tag, does not take the arguments, or its transform cannot be followed.
    """
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise ImportError("timm is not installed: pip install 'hdm-pipeline[timm]'") from None
    check_arch(arch, timm.list_models(), "timm")
    given = dict(arguments or {})
    check_arguments(arch, given)
    name = arch if weights in (None, "DEFAULT") else f"{arch}.{weights}"
    try:
        known = getattr(timm.get_pretrained_cfg(name), "num_classes", classes) if weights is not None else classes
        if classes not in (None, known):  # timm would give the head random weights
            raise RuntimeError(f"its weights have {known} classes, not {classes}; leave classes out, or give the path of your own weights")  # noqa: TRY301
        module: nn.Module = timm.create_model(name, pretrained=weights is not None, num_classes=classes, **given)
    except RuntimeError as error:  # also raised where there are no pretrained weights
        raise ValueError(f"timm cannot build {name}: {' '.join(str(error).split())}") from None
    except Exception as error:  # the networks check little, so that a wrong argument raises an error of any type
        if not given:
            raise
        raise ValueError(f"timm cannot build {name} with the arguments {given} ({' '.join(str(error).split())})") from None
    if getattr(module, "num_classes", None) == 0:
        raise ValueError(f"{name} returns features, not logits, unless classes is given, with the path of a state dict that has their head")
    config = timm.data.resolve_data_config({}, model=module)
    size = given.get("img_size", config["input_size"][1:])
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return module, follow_timm(arch, {**config, "input_size": (config["input_size"][0], *sides)})


def follow_timm(arch: str, config: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing that timm's transform of a configuration is.

    It is that of `timm.data.create_transform`, in evaluation. Its crop modes: center crops what is resized in proportion, squash resizes to
    a size exactly, border fits the image into a size and fills the rest with the mean. Each resizes to the input's size divided by
    `crop_pct`, and crops the centre.

    Args:
        arch: name of the network, for the error.
        config: of `timm.data.resolve_data_config`.

    Raises:
        ValueError: for the mode center of inputs that are not square, whose resize has no name here.
    """
    size: Size = config["input_size"][1:]
    resized = math.floor(size[0] / config["crop_pct"]), math.floor(size[1] / config["crop_pct"])
    mode, is_square = config["crop_mode"], size[0] == size[1]
    if mode not in ("squash", "border") and not is_square:
        raise ValueError(f"{arch} takes images of {size[0]} x {size[1]}; for timm's crop mode {mode} they must be square")
    return Preprocess(
        resize=resized if mode in ("squash", "border") else resized[0],
        crop=size[0] if is_square else size,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=InterpolationMode(config["interpolation"]),
        pad=mode == "border",
        fill=tuple(config["mean"]) if mode == "border" else 0.0,
    )


def load_timm(path: str | Path, arch: str, classes: int | None, arguments: Mapping[str, Any] | None = None) -> tuple[nn.Module, Preprocess]:
    """Build a timm network with the weights of a state dict, and its preprocessing.

    Raises:
        ImportError: if timm is not installed.
        OSError: if the file cannot be read.
        ValueError: as `build_timm`, or if the weights are not the network's.
    """
    module, preprocess = build_timm(arch, None, classes, arguments)
    state = match_keys(read_state(path), module.state_dict())
    found = _state_options(module, state, classes)
    options = {key: value for key, value in found.items() if key not in (arguments or {})}
    if options:
        count = options.pop("num_classes", classes)
        module, preprocess = build_timm(arch, None, count, {**options, **(arguments or {})})
    fit_state(module, state, path, arch if classes is None else f"{arch} with {classes} classes")
    return module, preprocess


def _state_options(module: nn.Module, state: Mapping[str, Tensor], classes: int | None) -> dict[str, Any]:
    """Return the arguments with which the network has the shapes of a state dict.

    They are the size of the images, from a transformer's position embedding, and the number of classes if it is not given.
    """
    options: dict[str, Any] = {}
    own, positions = module.state_dict().get("pos_embed"), state.get("pos_embed")
    patches: Any = getattr(module, "patch_embed", None)
    if own is not None and positions is not None and own.ndim == positions.ndim == 3 and hasattr(patches, "grid_size"):
        tokens = own.shape[1] - math.prod(patches.grid_size)  # of the class and registers
        side = math.isqrt(max(0, positions.shape[1] - tokens))
        if side**2 == positions.shape[1] - tokens and positions.shape != own.shape:
            options["img_size"] = side * patches.patch_size[0]
    head = getattr(module, "pretrained_cfg", {}).get("classifier")
    logits = state.get(f"{head}.weight") if isinstance(head, str) else None
    if classes is None and logits is not None and len(logits) != getattr(module, "num_classes", None):
        options["num_classes"] = len(logits)
    return options
