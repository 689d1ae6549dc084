"""Views of an image for the metrics, and the target's probability on each.

Views of all images, maps and steps are put into full batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hdm_core.device import LAYOUT
from hdm_core.metrics.confidence import REMOVED
from hdm_core.metrics.curves import curve_points
from hdm_core.metrics.forward import even_parts, target_probability
from hdm_core.metrics.pixels import boundaries, share
from hdm_core.metrics.settings import Protocol
from hdm_core.problem_type import ProblemType

# A view (first, last, background) shows an image's pixels of ranks first .. last - 1 and, on all others, a background: the baseline (0)
# or RISE's blurred image (1).
View = tuple[int, int, int]


def shared_views(protocol: Protocol, height: int, width: int) -> list[View]:
    """Return the views that depend on no map.

    They are the image, the baseline, and last the start of insertion if it is another image.
    """
    return [(0, height * width, 0), (0, 0, 0), *([(0, 0, 1)] if protocol == "rise" else [])]


def map_views(protocol: Protocol, height: int, width: int) -> list[View]:
    """Return the views of one map.

    They are deletion and insertion between their ends, then the most salient pixels that remain for each of `REMOVED`.
    """
    pixels = height * width
    inner = boundaries(pixels, curve_points(protocol, height))[1:-1]
    start = int(protocol == "rise")
    return [
        *((moved, pixels, 0) for moved in inner),
        *((0, moved, start) for moved in inner),
        *((0, share(pixels, 100 - removed, 100), 0) for removed in REMOVED),
    ]


class Viewer:
    """A network with the images of which it gets views.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: (B,), the classes whose probability is measured.
        backgrounds: what replaces the pixels that are not shown, each broadcastable to images.
        rank: (N, H, W), the pixels' ranks in N maps.
        index: (N,), the image of each map.
        batch: upper limit of views per forward pass.
        problem_type: what a probability is.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        targets: Tensor,
        backgrounds: Sequence[Tensor],
        rank: Tensor,
        index: Tensor,
        batch: int,
        problem_type: ProblemType,
    ) -> None:
        self._problem_type: ProblemType = problem_type
        self._network, self._targets, self._rank, self._index, self._batch = network, targets, rank, index, batch
        self._images = images.contiguous()
        one = len(backgrounds) == 1
        self._backgrounds = backgrounds[0][None] if one else torch.stack([each.expand_as(images) for each in backgrounds])

    def probabilities(self, shared: list[View], own: list[View]) -> tuple[Tensor, Tensor]:
        """Return the targets' probabilities on all views.

        Returns:
            (B, len(shared)) of every image and (N, len(own)) of every map.
        """
        device, images, maps = self._images.device, len(self._images), len(self._index)
        views = torch.tensor(shared + own, device=device)
        image = torch.cat([torch.arange(images, device=device).repeat_interleave(len(shared)), self._index.repeat_interleave(len(own))])
        # A shared view shows the same with every map, so that any map's ranks do.
        map_number = torch.cat([image.new_zeros(images * len(shared)), torch.arange(maps, device=device).repeat_interleave(len(own))])
        view = torch.cat([views[: len(shared)].repeat(images, 1), views[len(shared) :].repeat(maps, 1)])
        parts = even_parts(len(image), self._batch)
        probability = torch.cat([self._probability(image[part], map_number[part], view[part]) for part in parts])
        return probability[: images * len(shared)].view(images, -1), probability[images * len(shared) :].view(maps, -1)

    def _probability(self, image: Tensor, map_number: Tensor, view: Tensor) -> Tensor:
        rank = self._rank[map_number][:, None]
        first, last = view[:, :2, None, None, None].to(rank.dtype).unbind(1)
        # A background that is the same for all images is not copied for each.
        background = self._backgrounds[0] if self._backgrounds.shape[:2] == (1, 1) else self._backgrounds[view[:, 2], image]
        shown = ((rank >= first) & (rank < last)).to(self._images.dtype)
        # Exact for 0 and 1, and on the CPU twenty times as fast as `where`.
        images = torch.lerp(background, self._images[image], shown).contiguous(memory_format=LAYOUT)
        return target_probability(self._network, images, self._targets[image], self._problem_type)
