"""The pictures that the metrics show to the network, and the target's probability on each: full batches of images, maps and steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from hdm_core.device import LAYOUT
from hdm_core.masking.consistency import chunk_size
from hdm_core.metrics.confidence import REMOVED
from hdm_core.metrics.curves import Protocol, curve_points
from hdm_core.metrics.pixels import boundaries, share
from hdm_core.network.logits import class_logits

# A view shows an image's pixels of ranks first .. last - 1 and, on all others, a ground: the baseline (0) or RISE's blurred image (1).
View = tuple[int, int, int]


def shared_views(protocol: Protocol, height: int, width: int) -> list[View]:
    """Those that depend on no map: the image, the baseline, and last what insertion starts from, if that is another picture."""
    return [(0, height * width, 0), (0, 0, 0), *([(0, 0, 1)] if protocol == "rise" else [])]


def map_views(protocol: Protocol, height: int, width: int) -> list[View]:
    """Those of one map: deletion and insertion between their ends, then the pixels that are left for each of `MUTED`."""
    pixels = height * width
    inner = boundaries(pixels, curve_points(protocol, height))[1:-1]
    start = int(protocol == "rise")
    return [
        *((moved, pixels, 0) for moved in inner),
        *((0, moved, start) for moved in inner),
        *((0, share(pixels, 100 - muted, 100), 0) for muted in REMOVED),
    ]


class Viewer:
    """A network that is shown views of images.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: (B,), the classes whose softmax probability is asked for.
        grounds: what is seen where the image is not, each broadcastable to images.
        rank: (N, H, W), the pixels' places in N maps.
        index: (N,), the image that each map is of.
        batch: at most so many views go through the network at once.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, targets: Tensor, grounds: Sequence[Tensor], rank: Tensor, index: Tensor, batch: int
    ) -> None:
        self._network, self._targets, self._rank, self._index, self._batch = network, targets, rank, index, batch
        self._images = images.contiguous()
        self._grounds = grounds[0][None] if len(grounds) == 1 else torch.stack([ground.expand_as(images) for ground in grounds])

    def probabilities(self, shared: list[View], own: list[View]) -> tuple[Tensor, Tensor]:
        """The targets' probabilities: of every image in the shared views, (B, len(shared)), and of every map in its own, (N, len(own))."""
        device, images, maps = self._images.device, len(self._images), len(self._index)
        views = torch.tensor(shared + own, device=device)
        image = torch.cat([torch.arange(images, device=device).repeat_interleave(len(shared)), self._index.repeat_interleave(len(own))])
        # Whatever the map, a shared view shows the same.
        of = torch.cat([image.new_zeros(images * len(shared)), torch.arange(maps, device=device).repeat_interleave(len(own))])
        view = torch.cat([views[: len(shared)].repeat(images, 1), views[len(shared) :].repeat(maps, 1)])
        found = torch.cat([self._probability(image[part], of[part], view[part]) for part in even_parts(len(image), self._batch)])
        return found[: images * len(shared)].view(images, -1), found[images * len(shared) :].view(maps, -1)

    def _probability(self, image: Tensor, of: Tensor, view: Tensor) -> Tensor:
        rank = self._rank[of][:, None]
        first, last = view[:, :2, None, None, None].to(rank.dtype).unbind(1)
        # A ground that is the same for all images is not copied for each.
        behind = self._grounds[0] if self._grounds.shape[:2] == (1, 1) else self._grounds[view[:, 2], image]
        shown = ((rank >= first) & (rank < last)).to(self._images.dtype)
        # Exact for 0 and 1, and on the CPU twenty times as fast as `where`.
        pictures = torch.lerp(behind, self._images[image], shown).contiguous(memory_format=LAYOUT)
        logits = class_logits(self._network, pictures).float()
        return logits.softmax(1).gather(1, self._targets[image, None])[:, 0]


def even_parts(rows: int, batch: int) -> Iterator[slice]:
    """The rows in as few parts as `batch` allows, of even size: a small remainder would be slow."""
    start = 0
    while start < rows:
        stop = start + chunk_size(rows - start, batch)
        yield slice(start, stop)
        start = stop
