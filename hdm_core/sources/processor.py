"""Hugging Face's image processors as a `Preprocess`, compared on test images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from hdm_core.messages import one_line
from hdm_core.preprocess import Preprocess

_TOLERANCE = 1e-5  # of the largest value, at least of 1
# Width and height of the test images: of all proportions, and with odd and even margins beside a centre crop.
_SIZES = ((64, 64), (50, 40), *((64, 64 + odd) for odd in range(27, 39)), *((64 + odd, 64) for odd in range(27, 39)), (300, 260))
_CONVNEXT_EXACT = 384  # from this size on ConvNeXT's processor crops nothing
_HINT = "give the preprocess, of the same values if that is enough (resize, crop, mean and std in a configuration)"


def follow_processor(processor: Any, name: str) -> Preprocess:
    """Return the preprocessing that does what an image processor does.

    It is read from the processor's settings, and compared with the processor's own result on test images: what is not known of a
    processor's code is not assumed.

    Args:
        processor: of transformers, which resizes by Pillow.
        name: of the checkpoint, for errors.

    Raises:
        ValueError: if there is no such preprocessing, or its result differs.
    """
    kind = type(processor).__name__
    try:
        preprocess = _read(processor)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{name}: its processor {kind} cannot be followed exactly ({error}): {_HINT}") from None
    for number, size in enumerate(_SIZES):
        image = _noise(size, number)
        try:
            expected = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0])
        except Exception as error:  # processors of other tasks raise errors of many types
            raise ValueError(f"{name}: its processor {kind} gives no pixel_values for an image ({one_line(error)}): {_HINT}") from None
        found = preprocess(image).numpy()
        if found.shape != expected.shape:
            difference = f"an input of {expected.shape} instead of {found.shape}"
        elif (largest := float(np.abs(found - expected).max())) > _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            difference = f"values that differ by up to {largest:.2g}"
        else:
            continue
        where = f"for {size[0]} x {size[1]} pixels it gives {difference}"
        raise ValueError(f"{name}: its processor {kind} cannot be followed exactly: {where}; {_HINT}")
    return preprocess


def _read(processor: Any) -> Preprocess:
    """Read the preprocessing from a processor's settings."""
    resize, crop = _sizes(processor)
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    channels = max(np.size(mean), np.size(std), 1 if processor.do_normalize else 3)
    return Preprocess(
        resize=resize,
        crop=crop,
        mean=tuple(np.broadcast_to(mean, channels).tolist()),
        std=tuple(np.broadcast_to(std, channels).tolist()),
        interpolation=_interpolation(processor),
        value_range=(0.0, 1.0) if abs(scale - 1) < 1e-9 else (0.0, scale),
        crop_rounding="down",
    )


def _sizes(processor: Any) -> tuple[Any, Any]:
    """Return `resize` and `crop` of a processor."""
    size, cropped = _keys(processor.size), _keys(getattr(processor, "crop_size", None))
    crop = (cropped["height"], cropped["width"]) if processor.do_center_crop else None
    if not processor.do_resize:
        return None, crop
    if set(size) == {"height", "width"}:
        return (size["height"], size["width"]), crop
    if set(size) != {"shortest_edge"}:
        raise ValueError(f"it resizes to {size}")
    side, share = size["shortest_edge"], getattr(processor, "crop_pct", None)
    if share is None:
        return side, crop
    return ((side, side), crop) if side >= _CONVNEXT_EXACT else (int(side / share), crop or side)


def _keys(size: Any) -> dict[str, int]:
    """Return the keys of a size that are set."""
    return {key: value for key, value in dict(size or {}).items() if value is not None}


def _interpolation(processor: Any) -> InterpolationMode:
    """Return torchvision's name of a processor's filter."""
    if not processor.do_resize:
        return InterpolationMode.BILINEAR
    modes = {int(filter_): mode for mode, filter_ in F.pil_modes_mapping.items()}
    return modes[int(processor.resample)]


def _noise(size: tuple[int, int], seed: int) -> Image.Image:
    """Return an image of noise, in which every pixel that is misplaced shows."""
    width, height = size
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy())
