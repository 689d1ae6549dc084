"""Images of a training: a cache of decoded images, and a torch Dataset of them."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
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
_SHARED = "images"
_LOG_INTERVAL = 10.0  # seconds between two log lines while images are read


class ImageCache:
    """Decoded images (3, H, W) uint8, resized as by the preprocessing.

    At most `max_bytes` of them are held in memory; the others are read again each time. A cache that is sent to another process takes its
    images along only if they are shared.

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
        self._folder = ""  # of the file of shared images

    def share(self) -> None:
        """Move the cached images to a file, which other processes map into memory.

        Not to /dev/shm, of which a container has 64 MiB.
        """
        if self._folder or not self._cached:
            return
        self._folder = tempfile.mkdtemp(prefix="hdm-images-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        with Path(self._folder, _SHARED).open("wb") as file:
            for image in self._cached.values():
                file.write(image.contiguous().numpy().data)
        self._map({name: tuple(image.shape) for name, image in self._cached.items()})
        self._free_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: it maps shared images, and reads the others."""
        shapes = {name: tuple(image.shape) for name, image in self._cached.items()} if self._folder else {}
        return {**self.__dict__, "_cached": shapes, "_free_bytes": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a cache that another process has sent."""
        self.__dict__.update(state)
        if self._folder:
            self._map(state["_cached"])

    def _map(self, shapes: Mapping[str, Sequence[int]]) -> None:
        sizes = [torch.Size(shape).numel() for shape in shapes.values()]
        values = torch.from_file(str(Path(self._folder, _SHARED)), shared=True, size=sum(sizes), dtype=torch.uint8)
        self._cached = {name: part.view(*shape) for (name, shape), part in zip(shapes.items(), torch.split(values, sizes), strict=True)}

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


def reader_processes(readers: int) -> dict[str, Any]:
    """Return the arguments of a DataLoader whose batches other processes load.

    These are not forked from a training, which has threads and uses the GPU, but from a server that has imported what they need. They are
    new in each epoch: random numbers of processes that persist would depend on the epochs that the training has seen.
    """
    if not readers:
        return {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return {"num_workers": readers, "multiprocessing_context": context}


def eval_transform(preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """Return the centre crop and normalisation with which images are explained."""
    return partial(_crop_and_normalise, preprocess=preprocess)


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
        v2.Lambda(partial(_normalise, preprocess=preprocess)),
        v2.RandomErasing(augmentation.erasing) if augmentation.erasing else None,
    ]
    transform: Callable[[Tensor], Tensor] = v2.Compose([step for step in steps if step is not None])
    return transform


def _crop_and_normalise(image: Tensor, preprocess: Preprocess) -> Tensor:
    return _normalise(F.center_crop(image, list(preprocess.size)), preprocess)


def _normalise(image: Tensor, preprocess: Preprocess) -> Tensor:
    """Convert uint8 pixels to normalised floats as `Preprocess` does."""
    # Not v2's own conversion, which rounds differently.
    normalised: Tensor = F.normalize(image.float().div(255), list(preprocess.mean), list(preprocess.std))
    return normalised
