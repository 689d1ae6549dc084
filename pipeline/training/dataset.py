"""The images of a training: read once, kept small, changed anew each time they are seen."""

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
from pipeline.datasets.images import UnreadableError, read_image
from pipeline.errors import RunError, one_line
from pipeline.training.config import Augmentation
from pipeline.training.split import Example

_log = logging.getLogger(__name__)

_READERS = 8  # images that are read and decoded at once
_SECONDS = 10.0  # between two lines while images are read


class ImageCache:
    """Decoded images (3, H, W) uint8 whose short side is the preprocessing's `resize`; so many bytes of them are kept.

    Attributes:
        facts: of every item its file's checksum and why it could not be read, each empty where there is none; `read` fills it.
    """

    def __init__(self, items: Sequence[Example], preprocess: Preprocess, storage: Mapping[str, Any], keep: float) -> None:
        self.items = items
        self.preprocess = preprocess
        self.facts: list[tuple[str, str]] = []
        self._storage = storage
        self._kept: dict[str, Tensor] = {}
        self._room = keep

    def read(self) -> list[Example]:
        """Reads every image, keeps what there is room for, and returns the items that could be read."""
        readable = []
        last = time.monotonic()
        with ThreadPoolExecutor(_READERS) as readers:
            for item, (picture, sha256, error) in zip(self.items, readers.map(self._read, self.items), strict=True):
                self.facts.append((sha256, error))
                if picture is not None:
                    readable.append(item)
                    self._keep(item, picture)
                if time.monotonic() - last >= _SECONDS:
                    last = time.monotonic()
                    _log.info("%d of %d images are read", len(self.facts), len(self.items))
        return readable

    def get(self, item: Example) -> Tensor:
        """An image, from memory or read again.

        Raises:
            RunError: if it cannot be read any more.
        """
        kept = self._kept.get(item.sample.image_id)
        if kept is not None:
            return kept
        picture, _, error = self._read(item)
        if picture is None:
            raise RunError(f"{item.sample.path} cannot be read any more: {error}")
        self._keep(item, picture)
        return picture

    def _keep(self, item: Example, picture: Tensor) -> None:
        if picture.nbytes <= self._room:
            self._room -= picture.nbytes
            self._kept[item.sample.image_id] = picture

    def _read(self, item: Example) -> tuple[Tensor | None, str, str]:
        try:
            picture = read_image(item.sample, self._storage, self.preprocess)
        except UnreadableError as error:
            return None, "", one_line(error)
        return F.pil_to_tensor(picture.image), picture.sha256, ""


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Some of the images as the network sees them, (3, crop, crop) float32, each with its class.

    Without an augmentation the tensors are those of `Preprocess`, byte for byte.
    """

    def __init__(self, pictures: ImageCache, items: Sequence[Example], augmentation: Augmentation | None = None) -> None:
        self._pictures = pictures
        self._items = items
        self._change = centre(pictures.preprocess) if augmentation is None else changes(pictures.preprocess, augmentation)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        item = self._items[index]
        return self._change(self._pictures.get(item)), item.target


def centre(preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """What an explanation shows a network."""
    as_floats = _floats(preprocess)
    return lambda picture: as_floats(F.center_crop(picture, [preprocess.crop]))


def changes(preprocess: Preprocess, augmentation: Augmentation) -> Callable[[Tensor], Tensor]:
    """A random view of an image."""
    aspect = (1 / augmentation.aspect, augmentation.aspect)
    colour = augmentation.colour
    steps: list[Any] = [
        v2.RandomRotation(augmentation.rotation, v2.InterpolationMode.BILINEAR) if augmentation.rotation else None,
        v2.RandomResizedCrop(preprocess.crop, (augmentation.scale, 1.0), aspect, preprocess.interpolation),
        v2.RandomHorizontalFlip() if augmentation.flip else None,
        v2.RandomVerticalFlip() if augmentation.vertical_flip else None,
        v2.ColorJitter(colour, colour, colour) if colour else None,
        v2.Lambda(_floats(preprocess)),
        v2.RandomErasing(augmentation.erasing) if augmentation.erasing else None,
    ]
    change: Callable[[Tensor], Tensor] = v2.Compose([step for step in steps if step is not None])
    return change


def _floats(preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """Pixels as `Preprocess` has them; v2's own conversion rounds otherwise."""
    return lambda picture: F.normalize(picture.float().div(255), list(preprocess.mean), list(preprocess.std))
