"""Preprocessing of photographs, masks and boxes: resize, centre crop, normalise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification

from hdm_core.integers import as_integer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Preprocess:
    """Inference transform: resize, centre crop, scale to [0, 1], normalise.

    The short side is resized to `resize`, the centre `crop` x `crop` is cut out, values are scaled to [0, 1] and normalised by `mean` and
    `std`. This is the inference transform of torchvision's classification weights, with its geometry exposed so that masks, boxes and
    maps can be converted between a photograph and the network's input.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def __post_init__(self) -> None:
        """Convert numbers of numpy and torch, and the interpolation's name.

        Raises:
            ValueError: if a size is not positive, a standard deviation is not positive, or the interpolation is unknown.
            TypeError: if a size is no integer.
        """
        for name in ("resize", "crop"):
            size = as_integer(name, getattr(self, name))
            if size < 1:
                raise ValueError(f"{name} must be at least 1 pixel, not {size}")
            object.__setattr__(self, name, size)
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std must be positive, not {self.std}")
        object.__setattr__(self, "interpolation", InterpolationMode(self.interpolation))

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

    def __call__(self, image: Image.Image) -> Tensor:
        """Convert an RGB photograph to (3, crop, crop) float32, normalised."""
        tensor: Tensor = F.normalize(F.to_tensor(self.cropped(image)), list(self.mean), list(self.std))
        return tensor

    def cropped(self, image: Image.Image) -> Image.Image:
        """Return the crop of the photograph that the network gets, crop x crop pixels."""
        resized = F.resize(image, [self.resize], interpolation=self.interpolation, antialias=True)
        crop: Image.Image = F.center_crop(resized, [self.crop])
        return crop

    def region(self, mask: Image.Image) -> Tensor:
        """Convert a ground-truth mask of the photograph's size to (crop, crop) bool.

        Grey levels of at least one half are inside the region.
        """
        resized = F.resize(mask.convert("L"), [self.resize], interpolation=InterpolationMode.NEAREST)
        grey: Tensor = F.to_tensor(F.center_crop(resized, [self.crop]))[0]
        return grey >= 0.5

    def region_of_box(self, box: Box, width: int, height: int) -> Tensor:
        """Convert a box in pixels of the photograph to a region (crop, crop) bool.

        Args:
            box: (left, top, right, bottom).
            width: of the photograph.
            height: of the photograph.

        Returns:
            True where a pixel's centre is inside the box.
        """
        left, top, right, bottom = self.crop_box(width, height)
        columns = left + (torch.arange(self.crop) + 0.5) * (right - left) / self.crop
        rows = top + (torch.arange(self.crop) + 0.5) * (bottom - top) / self.crop
        inside_x = (columns >= box[0]) & (columns < box[2])
        inside_y = (rows >= box[1]) & (rows < box[3])
        return inside_y[:, None] & inside_x[None, :]

    def crop_box(self, width: int, height: int) -> Box:
        """Return the crop as (left, top, right, bottom) in pixels of the photograph.

        It extends beyond the photograph where the crop is larger than the resized image (torchvision pads with black).
        """
        resized_width, resized_height = self.resized(width, height)
        left = _crop_start(resized_width, self.crop)
        top = _crop_start(resized_height, self.crop)
        across, down = width / resized_width, height / resized_height
        return left * across, top * down, (left + self.crop) * across, (top + self.crop) * down

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height after the resize, before the crop."""
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def black(self) -> Tensor:
        """Return a black pixel after normalisation, (3, 1, 1)."""
        return -torch.tensor(self.mean)[:, None, None] / torch.tensor(self.std)[:, None, None]


def _crop_start(length: int, crop: int) -> int:
    """Return the first pixel of the centre crop, rounded and padded as in torchvision."""
    if crop > length:
        return -((crop - length) // 2)
    return round((length - crop) / 2.0)
