"""Preprocessing of photographs, masks and boxes: resize, crop or pad, normalise."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification

from hdm_core.geometry import Box, Geometry, Rounding, Size, crop_start
from hdm_core.integers import as_size
from hdm_core.photograph import Photograph, cut_or_fill, displayed, resize, with_channels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """Inference transform: resize, crop or pad at the centre, scale, normalise.

    The defaults are the inference transform of torchvision's classification weights. Its geometry is exposed, so that masks, boxes and
    maps can be converted between a photograph and the network's input.

    Attributes:
        resize: the short side in pixels, the long side in proportion; or (height, width) exactly, whatever the photograph's proportions;
            None leaves photographs as they are.
        crop: side in pixels, or (height, width), of the centre that is cut out; None for all that is resized.
        mean: one value per channel that is subtracted, in the range of `value_range`.
        std: one value per channel to divide by.
        interpolation: of the resize, with antialiasing, as torchvision resizes Pillow's images.
        pad: fit the whole photograph into `resize` without changing its proportions (letterbox), and fill the rest.
        fill: value of all that lies beyond the photograph, in [0, 1], one for all channels or one each; rounded to a level of 8 bits.
        crop_rounding: of a crop whose margins would be half a pixel apart: "nearest" even number, as in torchvision, or "down", as in
            transformers.
        value_range: black and white of the network's images before `mean` and `std`, such as (-1024, 1024) of torchxrayvision.
    """

    resize: int | Size | None = 256
    crop: int | Size | None = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: InterpolationMode = InterpolationMode.BILINEAR
    pad: bool = False
    fill: float | tuple[float, ...] = 0.0
    value_range: tuple[float, float] = (0.0, 1.0)
    crop_rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        """Convert numbers of numpy and torch, and the interpolation's name.

        Raises:
            ValueError: if a size is not positive, a standard deviation is not positive, the interpolation is unknown, the lengths of mean,
                std and fill differ, or the settings give no fixed size.
            TypeError: if a size is no integer.
        """
        for name in ("resize", "crop"):
            object.__setattr__(self, name, as_size(name, getattr(self, name)))
        for name in ("mean", "std", "value_range"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        fill: Any = self.fill
        object.__setattr__(self, "fill", tuple(map(float, fill)) if np.ndim(fill) else float(fill))
        object.__setattr__(self, "interpolation", InterpolationMode(self.interpolation))
        self._check_values()
        if self.pad and self.resize is None:
            raise ValueError("pad needs resize: the side, or (height, width), that photographs are fitted into")
        if self.crop is None and not (isinstance(self.resize, tuple) or self.pad):
            raise ValueError("without crop the inputs have no fixed size: give crop, resize as (height, width), or pad")

    def _check_values(self) -> None:
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std must be positive, not {self.std}")
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"mean and std need one value per channel each; they have {len(self.mean)} and {len(self.std)}")
        levels = self.fill if isinstance(self.fill, tuple) else (self.fill,)
        if len(levels) not in (1, self.channels) or not all(0 <= level <= 1 for level in levels):
            raise ValueError(f"fill must be a value in 0 to 1, or one for each of the {self.channels} channels, not {self.fill}")
        if len(self.value_range) != 2 or not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            raise ValueError(f"value_range must be two numbers (low, high), low first, not {self.value_range}")
        if self.value_range != (0, 1) and (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            raise ValueError(
                f"mean and std are ImageNet's, for values in 0 to 1, and value_range is {self.value_range}: "
                "give them in the same range; mean 0 and std 1 change nothing"
            )

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return len(self.mean)

    @property
    def size(self) -> Size:
        """Height and width of the network's input, in pixels."""
        size = self.resize if self.crop is None else self.crop
        assert size is not None  # noqa: S101 - for the type checker: __post_init__ refuses it
        return size if isinstance(size, tuple) else (size, size)

    @property
    def spread(self) -> float:
        """Standard deviation that the network's inputs have, roughly.

        It is 1, as ImageNet's preprocessing makes it. With another `value_range` it is a quarter of that range, divided by the smallest
        `std`.
        """
        low, high = self.value_range
        return 1.0 if (low, high) == (0, 1) else (high - low) / 4 / min(self.std)

    @property
    def unused(self) -> set[str]:
        """Names of the settings that earlier versions did not have, and that are not used."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name for name in ("pad", "fill", "value_range", "crop_rounding") if getattr(self, name) == defaults[name]}

    @property
    def resampling(self) -> Image.Resampling:
        """Pillow's filter of the interpolation."""
        return Image.Resampling(F.pil_modes_mapping[self.interpolation])

    @classmethod
    def from_weights(cls, transforms: ImageClassification) -> Preprocess:
        """Build the equivalent of a torchvision weights entry's `transforms()`."""
        return cls(
            resize=transforms.resize_size[0],
            crop=transforms.crop_size[0],
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
            interpolation=transforms.interpolation,
        )

    @classmethod
    def of_side(cls, side: int) -> Preprocess:
        """Build the default for a network with inputs of side x side pixels.

        The short side is resized to 256 / 224 of `side`, the ratio of the ImageNet transform.
        """
        return cls(resize=round(side * 256 / 224), crop=side)

    @classmethod
    def of_size(cls, size: Size) -> Preprocess:
        """Build the default for a network with inputs of height x width pixels.

        A square is that of `of_side`; other photographs are resized to the size exactly, so that nothing of them is lost.
        """
        return cls.of_side(size[0]) if size[0] == size[1] else cls(resize=size, crop=None)

    def __call__(self, image: Photograph) -> Tensor:
        """Convert a photograph to (C, H, W) float32, normalised.

        Raises:
            ValueError: if the photograph has other channels than the network takes, or pixels without a known range.
        """
        pixels = self._pixels(image)
        if self.value_range != (0, 1):
            low, high = self.value_range
            pixels = pixels * (high - low) + low
        tensor: Tensor = F.normalize(pixels, list(self.mean), list(self.std))
        return tensor

    def cropped(self, image: Photograph) -> Image.Image:
        """Return the part of the photograph that the network gets, RGB, of its size."""
        return displayed(self._pixels(image).permute(1, 2, 0).numpy())

    def _pixels(self, image: Photograph) -> Tensor:
        """Return the network's input before normalisation, (C, H, W) float32 in [0, 1]."""
        pixels = with_channels(image, self.channels)
        resized = self.resized(*(pixels.size if isinstance(pixels, Image.Image) else pixels.shape[1::-1]))
        levels = [round(255 * float(level)) / 255 for level in np.broadcast_to(self.fill, self.channels)]
        return cut_or_fill(resize(pixels, resized, self.resampling), self._crop_start(*resized), self.size, levels)

    def _crop_start(self, width: int, height: int) -> tuple[int, int]:
        """Return the column and row at which the input begins after the resize.

        They are negative where it is filled.
        """
        return crop_start(width, self.size[1], self.crop_rounding), crop_start(height, self.size[0], self.crop_rounding)

    def region(self, mask: Image.Image) -> Tensor:
        """Convert a ground-truth mask of the photograph's size to (H, W) bool.

        Grey levels of at least one half are inside the region, and nothing beyond the photograph is.
        """
        resized = mask.convert("L").resize(self.resized(*mask.size), Image.Resampling.NEAREST)
        left, top = self._crop_start(*resized.size)
        grey: Tensor = F.to_tensor(resized.crop((left, top, left + self.size[1], top + self.size[0])))[0]
        return grey >= 0.5

    def region_of_box(self, box: Box, width: int, height: int) -> Tensor:
        """Convert a box in pixels of the photograph to a region (H, W) bool.

        Args:
            box: (left, top, right, bottom).
            width: of the photograph.
            height: of the photograph.

        Returns:
            True where a pixel's centre is inside the box.
        """
        rows, columns = (torch.arange(side) + 0.5 for side in self.size)
        x, y = self.geometry(width, height).to_photograph(columns, rows)
        inside_x = (x >= box[0]) & (x < box[2])
        inside_y = (y >= box[1]) & (y < box[3])
        return inside_y[:, None] & inside_x[None, :]

    def geometry(self, width: int, height: int) -> Geometry:
        """Return the affine map between a photograph of this size and the input."""
        return Geometry.of_resize((width, height), self.resized(width, height), self.size, self.crop_rounding)

    def crop_box(self, width: int, height: int) -> Box:
        """Return the input's edges, (left, top, right, bottom) in photograph pixels.

        They are beyond the photograph where the input is filled.
        """
        return self.geometry(width, height).box

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height after the resize, before the crop."""
        if self.resize is None:
            return width, height
        if self.pad:
            rows, columns = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
            ratio = max(height / rows, width / columns)
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def blank(self) -> Tensor:
        """Return an image of the network's size, (1, C, H, W) float32 zeros."""
        return torch.zeros(1, self.channels, *self.size)

    def black(self) -> Tensor:
        """Return a black pixel after normalisation, (C, 1, 1)."""
        return (self.value_range[0] - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]
