"""Images of a training: a cache of decoded images, and a torch Dataset of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import functional as F
from torchvision.transforms import v2

from hdm_core import Preprocess
from hdm_core.photograph import to_rgb
from pipeline.datasets.images import UnreadableError, read_image
from pipeline.errors import RunError, one_line
from pipeline.training.config import Augmentation
from pipeline.training.split import Example

_log = logging.getLogger(__name__)

_READERS = 8  # images read and decoded in parallel
_LOG_INTERVAL = 10.0  # seconds between two log lines while images are read


class ImageCache:
    """Decoded images (3, H, W) uint8, resized as by the preprocessing.

    At most `max_bytes` of them are held in memory; the others are read again each time.

    Attributes:
        read_results: (sha256, error) of each item, either of them empty; filled by `read`.
    """

    def __init__(self, items: Sequence[Example], preprocess: Preprocess, storage: Mapping[str, Any], max_bytes: float) -> None:
        self.items = items
        self.preprocess = preprocess
        self.read_results: list[tuple[str, str]] = []
        self._storage = storage
        self._cached: dict[str, Tensor] = {}
        self._free_bytes = max_bytes

    def read(self) -> list[Example]:
        """Read every image, cache those that fit, and return the items that could be read."""
        readable = []
        last_log = time.monotonic()
        with ThreadPoolExecutor(_READERS) as readers:
            for item, (image, sha256, error) in zip(self.items, readers.map(self._read, self.items), strict=True):
                self.read_results.append((sha256, error))
                if image is not None:
                    readable.append(item)
                    self._cache(item, image)
                if time.monotonic() - last_log >= _LOG_INTERVAL:
                    last_log = time.monotonic()
                    _log.info("%d of %d images are read", len(self.read_results), len(self.items))
        return readable

    def get(self, item: Example) -> Tensor:
        """Return an image from memory, or read it again.

        Raises:
            RunError: if it cannot be read any more.
        """
        cached = self._cached.get(item.sample.image_id)
        if cached is not None:
            return cached
        image, _, error = self._read(item)
        if image is None:
            raise RunError(f"{item.sample.path} cannot be read any more: {error}")
        self._cache(item, image)
        return image

    def _cache(self, item: Example, image: Tensor) -> None:
        if image.nbytes <= self._free_bytes:
            self._free_bytes -= image.nbytes
            self._cached[item.sample.image_id] = image

    def _read(self, item: Example) -> tuple[Tensor | None, str, str]:
        try:
            decoded = read_image(item.sample, self._storage, self.preprocess)
        except UnreadableError as error:
            return None, "", one_line(error)
        return F.pil_to_tensor(to_rgb(decoded.image)), decoded.sha256, ""


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Network inputs (3, H, W) float32 with their classes.

    Without an augmentation the tensors are those of `Preprocess`, byte for byte, of images with 8 bits per channel.
    """

    def __init__(self, cache: ImageCache, items: Sequence[Example], augmentation: Augmentation | None = None) -> None:
        self._cache = cache
        self._items = items
        self._transform = eval_transform(cache.preprocess) if augmentation is None else train_transform(cache.preprocess, augmentation)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        item = self._items[index]
        return self._transform(self._cache.get(item)), item.target


def eval_transform(preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """Return the centre crop and normalisation with which images are explained."""
    normalise = _normalisation(preprocess)
    return lambda image: normalise(F.center_crop(image, list(preprocess.size)))


def train_transform(preprocess: Preprocess, augmentation: Augmentation) -> Callable[[Tensor], Tensor]:
    """Return the random augmentation and normalisation of training images."""
    aspect = (1 / augmentation.aspect, augmentation.aspect)
    colour = augmentation.colour
    steps: list[Any] = [
        v2.RandomRotation(augmentation.rotation, v2.InterpolationMode.BILINEAR) if augmentation.rotation else None,
        v2.RandomResizedCrop(preprocess.size, (augmentation.scale, 1.0), aspect, preprocess.interpolation),
        v2.RandomHorizontalFlip() if augmentation.flip else None,
        v2.RandomVerticalFlip() if augmentation.vertical_flip else None,
        v2.ColorJitter(colour, colour, colour) if colour else None,
        v2.Lambda(_normalisation(preprocess)),
        v2.RandomErasing(augmentation.erasing) if augmentation.erasing else None,
    ]
    transform: Callable[[Tensor], Tensor] = v2.Compose([step for step in steps if step is not None])
    return transform


def _normalisation(preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """Return the conversion from uint8 pixels to normalised floats of `Preprocess`."""
    # Not v2's own conversion, which rounds differently.
    return lambda image: F.normalize(image.float().div(255), list(preprocess.mean), list(preprocess.std))
