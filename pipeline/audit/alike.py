"""Places at which images of a class look alike, and unlike those of other classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pipeline.audit.place import bounding_box

_SIDE = 32  # pixels along a side of the images that windows are compared in
_WINDOW = 4  # of these, along a side of a window: an eighth of the image
_NEIGHBOUR = 2  # the image is compared with this nearest one of its class: a near duplicate alone is no mark
_RATIO = 0.5  # of the distance to the nearest image of another class, at which an image looks alike
_LEAST = 3  # images that look alike
_SCORE = 2.0  # smallest score of a place: three of three images have 3, six of 15 that look alike near by have 2.4
_PLACES = 2  # of a class
_SPREAD = 0.25  # of the spread of other images, that a pixel of the place has at most
_FEW = 10  # images; with fewer the limit is proportionally smaller, since four photographs agree by chance


@dataclass(frozen=True)
class AlikePlace:
    """A place at which some images of a class look alike.

    Attributes:
        pixels: (H, W) bool, in the network's input.
        images: numbers of the images that look alike.
        score: their count, times the squared share that they are of those that look alike at or near the place.
    """

    pixels: NDArray[np.bool_]
    images: NDArray[np.int64]
    score: float


def reduced(images: Tensor) -> Tensor:
    """Average images to the size that windows are compared in, (N, C, 32, 32)."""
    return F.adaptive_avg_pool2d(images.float(), _SIDE).cpu()


def alike_places(own: Tensor, others: Tensor) -> list[AlikePlace]:
    """Find places at which images of a class look alike, the clearest first.

    At each window an image looks alike if the distance to its second nearest image of the class is at most half of that to the nearest
    image of another class. A mark at a fixed place makes the same images look alike at all of its windows; objects of one colour at
    changing places make other images look alike at each window, so that their score is low. The place itself has the pixels whose median
    absolute deviation over these images is at most a quarter of that over images of other classes (less with fewer than ten images).

    Args:
        own: images of the class, (A, C, H, W).
        others: images of other classes, (B, C, H, W).
    """
    if len(own) < _LEAST or not len(others):
        return []
    small, small_others = reduced(own), reduced(others)
    alike = look_alike(small, small_others)
    count, side = alike.sum(0), alike.shape[-1]
    near = F.max_pool2d((alike & (count >= _LEAST)).float()[:, None], 4 * _WINDOW + 1, 1, 2 * _WINDOW)[:, 0].sum(0)
    scores = np.where(count >= _LEAST, count.numpy() ** 3 / near.clamp(min=1).numpy() ** 2, 0.0)
    varies = _spread(others)
    found: list[AlikePlace] = []
    for _ in range(_PLACES):
        top, left = divmod(int(scores.argmax()), side)
        score = float(scores[top, left])
        if score < _SCORE:
            break
        images = np.flatnonzero(alike[:, top, left].numpy())
        most = _SPREAD * min(1.0, len(images) / _FEW)
        constant = _spread(own[torch.from_numpy(images).to(own.device)]) <= most * varies
        pixels = _pixels(constant.cpu().numpy(), (top, left))
        found.append(AlikePlace(pixels, images, score))
        labels, _count = ndimage.label(count.numpy() >= 0.5 * len(images), np.ones((3, 3)))
        beside = ndimage.binary_dilation(labels == labels[top, left], iterations=_WINDOW)
        scores[beside] = 0
    return found


def look_alike(own: Tensor, others: Tensor) -> Tensor:
    """Return which images of a class look alike at which windows, (A, S, S) bool.

    Args:
        own: (A, C, 32, 32).
        others: (B, C, 32, 32).
    """
    first, second = (F.unfold(images, _WINDOW).permute(2, 0, 1).contiguous() for images in (own, others))
    within, between = torch.cdist(first, first), torch.cdist(first, second)
    within.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    neighbour = within.kthvalue(min(_NEIGHBOUR, len(own) - 1), dim=2).values
    # A twentieth of the typical distance: two flat walls of different classes are no further apart than noise.
    ratio = neighbour / (between.amin(2) + 0.05 * between.median())
    side = _SIDE - _WINDOW + 1
    return (ratio <= _RATIO).T.reshape(len(own), side, side)


def _spread(images: Tensor) -> Tensor:
    """Return each pixel's median absolute deviation over images, (H, W)."""
    deviations = (images - images.median(0).values).abs()
    return deviations.median(0).values.sum(0)


def _pixels(constant: NDArray[np.bool_], window: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the constant pixels that are connected with those of a window."""
    cells = np.zeros((_SIDE, _SIDE), bool)
    cells[window[0] : window[0] + _WINDOW, window[1] : window[1] + _WINDOW] = True
    rows, columns = (np.arange(size) * _SIDE // size for size in constant.shape)
    within = cells[np.ix_(rows, columns)]
    padded = np.pad(ndimage.binary_opening(constant, np.ones((2, 2))), 2)
    labels, number = ndimage.label(ndimage.binary_closing(padded, np.ones((3, 3)))[2:-2, 2:-2], np.ones((3, 3)))
    in_window = np.bincount(labels[within], minlength=number + 1)[1:]
    if not number or not in_window.max():
        return within
    pixels: NDArray[np.bool_] = labels == in_window.argmax() + 1
    left, top, right, bottom = bounding_box(pixels)
    if 2 * pixels.sum() > (right - left) * (bottom - top):
        pixels[top:bottom, left:right] = True
    return pixels
