"""J, the consistency of masked images with the image, its gradient to the masks, and what it costs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hdm_core.device import LAYOUT, Precision, in_precision
from hdm_core.masking.ops import upsample
from hdm_core.network.logits import class_logits

Progress = Callable[[int], None]

_log = logging.getLogger(__name__)

# Values along a side of a backdrop: its features are larger than what a classifier looks at.
_GRID = 4


@dataclass
class PassCounter:
    """Counts passes and tells a listener of each step's share.

    A pass is a forward and a backward of one image; where a method needs no gradient, a forward alone is counted as one.
    """

    listener: Progress | None = None
    total: int = field(default=0)

    def add(self, passes: int) -> None:
        """Notes that so many passes were just done."""
        self.total += passes
        if self.listener is not None:
            self.listener(passes)


class ConsistencyLoss:
    """J(M, X) = (f_p(M X) - f_p(X))^2 for a batch of images, and its gradient to the masks (Section 3.1 of the paper).

    A `relative` J is divided by (f_p(X) - f_p(baseline))^2: it is 0 for the image, 1 where all is masked, and does not change when the
    logits are multiplied by a constant or one is added to them.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: X, (B, C, H, W).
        targets: p, (B,) int64.
        baseline: what a masked pixel becomes, broadcastable to X; the masked image is baseline + M (X - baseline).
        activation: "logit" or "probability", what f_p is.
        batch: how many masked images go through the network at once; halved for good where memory does not hold them.
        passes: counts the work.
        relative: see above; the paper's J is not.
        noise: spread of the backdrops that `backdrop` draws, in units of the images.
        precision: of the network; masks, their gradients and the optimiser keep the images' precision.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        targets: Tensor,
        baseline: Tensor,
        activation: str,
        batch: int,
        passes: PassCounter,
        relative: bool = False,
        noise: float = 0.0,
        precision: Precision = "float32",
    ) -> None:
        self.network = network
        self.targets = targets
        self.baseline = baseline
        self.contrast = (images - baseline).contiguous(memory_format=LAYOUT)
        self.probability = activation == "probability"
        self.batch = batch
        self.passes = passes
        self.noise = noise
        self.precision = precision
        # On the CPU and always the same: masks depend neither on the device nor on what was drawn before.
        self._generator = torch.Generator().manual_seed(0)
        self.reference = self._untouched(images)
        self.blank = self._untouched(baseline.expand_as(images))
        self.unit = torch.ones_like(self.reference)
        if relative:
            span = (self.reference - self.blank).abs()
            self.unit = torch.where(span == 0, self.unit, span)

    def for_images(self, images: Tensor) -> ConsistencyLoss:
        """The same loss for other pictures of the same subjects, in the same units: X_i of Eq. 2, (B, C, H, W)."""
        other = copy.copy(self)
        other.contrast = (images - self.baseline).contiguous(memory_format=LAYOUT)
        other.reference = self._untouched(images)
        return other

    def removal(self) -> ConsistencyLoss:
        """The loss (f_p(M X) - f_p(baseline))^2 in the same units: what M shows should have nothing of the class."""
        other = copy.copy(self)
        other.reference = self.blank
        return other

    def __len__(self) -> int:
        """The number of images."""
        return len(self.targets)

    def noise_background(self) -> Tensor | None:
        """A smooth random picture (1, C, H, W) to lay under the masks, so that texture which works on one ground only does not pay."""
        if not self.noise:
            return None
        _, channels, height, width = self.contrast.shape
        grid = torch.randn(1, channels, _GRID, _GRID, generator=self._generator)
        return self.noise * upsample(grid.to(self.contrast), height, width)

    def gradient(self, masks: Tensor, index: Tensor, background: Tensor | None = None) -> Tensor:
        """dJ/dM of every mask by itself.

        Args:
            masks: (N, 1, H, W).
            index: (N,), the image that each mask lies on.
            backdrop: (1, C, H, W), added to the baseline.

        Returns:
            (N, 1, H, W).
        """
        gradient = self._in_parts(len(masks), lambda part: self._gradient(masks[part], index[part], background))
        self.passes.add(len(masks))
        return gradient

    def scores(self, masks: Tensor, index: Tensor) -> Tensor:
        """f_p of masked images, without gradients: masks (N, 1, H, W), index (N,) the image that each lies on -> (N,)."""

        def score(part: slice) -> Tensor:
            images, _ = self._masked(masks[part], index[part])
            return self._activation(images, self.targets[index[part]])

        with torch.no_grad():
            scores = self._in_parts(len(masks), score)
        self.passes.add(len(masks))
        return scores

    def loss(self, activation: Tensor, index: Tensor) -> Tensor:
        """J of f_p's of masked images, (N,), the image that each shows in index (N,)."""
        return ((activation - self.reference[index]) / self.unit[index]).square()

    def _in_parts(self, rows: int, work: Callable[[slice], Tensor]) -> Tensor:
        """What `work` gives for rows 0 .. rows - 1, a batch at a time; where memory does not hold a batch it is halved and tried again."""
        done: list[Tensor] = []
        start = 0
        while start < rows:
            stop = start + chunk(rows - start, self.batch)
            try:
                done.append(work(slice(start, stop)))
                start = stop
            except torch.OutOfMemoryError:
                if self.batch == 1:
                    raise
                self.batch = (stop - start + 1) // 2
                _log.warning("out of memory: from here on %d images go through the network at once", self.batch)
        return done[0] if len(done) == 1 else torch.cat(done)

    @torch.enable_grad()
    def _gradient(self, masks: Tensor, index: Tensor, background: Tensor | None) -> Tensor:
        images, contrast = self._masked(masks, index, background)
        images.requires_grad_()
        loss = self.loss(self._activation(images, self.targets[index]), index).sum()  # a sum: images stay independent of each other
        (gradient,) = torch.autograd.grad(loss, images)
        return (gradient * contrast).sum(1, keepdim=True)

    def _masked(self, masks: Tensor, index: Tensor, background: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The masked images and their slopes to the masks, (N, C, H, W) each."""
        contrast = self.contrast[index].contiguous(memory_format=LAYOUT)
        baseline = self.baseline[index] if len(self.baseline) > 1 else self.baseline
        if background is not None:
            contrast, baseline = contrast - background, baseline + background
        return torch.addcmul(baseline, masks, contrast).contiguous(memory_format=LAYOUT), contrast

    @torch.no_grad()
    def _untouched(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=LAYOUT)
        return self._in_parts(len(images), lambda part: self._activation(images[part], self.targets[part]))

    def _activation(self, images: Tensor, targets: Tensor) -> Tensor:
        with in_precision(self.precision, images.device):
            # Kernels for one image alone round differently from those for two or more.
            seen = images if len(images) > 1 or self.batch == 1 else images.expand(2, -1, -1, -1)
            logits = class_logits(self.network, seen)[: len(images)].to(images.dtype)
        scores = logits.softmax(1) if self.probability else logits
        return scores.gather(1, targets[:, None])[:, 0]


def chunk(rows: int, batch: int) -> int:
    """How many of the rows left to take next, at most `batch`, so that chunks are of even size: a chunk of one or two is slow."""
    return -(-rows // -(-rows // batch))
