"""Consistency loss J of masked images, its gradient to the masks, and its passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator
from itertools import repeat

import torch
from torch import Tensor, nn

from hdm_core.batch_limit import BatchLimit
from hdm_core.device import LAYOUT, Precision, float32_arithmetic, in_precision
from hdm_core.draws import method_generator
from hdm_core.masking.ops import upsample
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.masking.passes import PassInputs, pass_graphs
from hdm_core.network.folding import is_folded
from hdm_core.network.gradients import gradient_of
from hdm_core.network.logits import class_logits
from hdm_core.problem_type import ProblemType, log_odds, probabilities
from hdm_core.settings import Activation, Loss

# Values along a side of a noise background: its features are larger than those that a classifier uses.
_GRID = 4


class ConsistencyLoss:
    """Consistency loss J(M, X) = (f_p(M X) - f_p(X))^2 for a batch of images.

    Section 3.1 of the paper. A `relative` J is divided by (f_p(X) - f_p(baseline))^2: it is 0 for the image and 1 for a fully masked image,
    and does not change when the logits are multiplied by a constant or shifted by one.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: X, (B, C, H, W).
        targets: p, (B,) int64.
        baseline: values of masked pixels, broadcastable to X; the masked image is baseline + M (X - baseline).
        activation: f_p, the target's logit, probability or log-odds.
        batch: masked images per forward, as a number or a limit; halved permanently when they do not fit into memory.
        passes: counter of the passes.
        relative: see above; the paper's J is not relative.
        noise: standard deviation of the values that `noise_backgrounds` draws before upsampling, in units of the images.
        precision: of the network; masks, their gradients and the optimiser keep the images' dtype.
        problem_type: what a probability is.
        loss: J for what is missing, see `loss`.
        cuda_graphs: capture passes on CUDA of a folded network, see `hdm_core.masking.passes.PassGraphs`.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        targets: Tensor,
        baseline: Tensor,
        activation: Activation,
        batch: int | BatchLimit,
        passes: PassCounter,
        relative: bool = False,
        noise: float = 0.0,
        precision: Precision = "float32",
        problem_type: ProblemType = "single_label_classification",
        loss: Loss = "square",
        cuda_graphs: bool = True,
    ) -> None:
        self.network = network
        self.targets = targets
        self.baseline = baseline
        self.contrast = (images - baseline).contiguous(memory_format=LAYOUT)
        self.activation: Activation = activation
        self.kind: Loss = loss
        self.limit = batch if isinstance(batch, BatchLimit) else BatchLimit(batch, "masks")  # shared with copies
        self.passes = passes
        self.noise = noise
        self.precision = precision
        self.problem_type: ProblemType = problem_type
        self._graphs = pass_graphs(network) if cuda_graphs and images.device.type == "cuda" and is_folded(network) else None
        self._checked: set[Hashable] = set()  # graphs that this loss, or a copy of it, has compared with their work
        # On the CPU with a fixed seed: masks depend neither on the device nor on earlier random draws.
        self._generator = method_generator()
        self.reference = self._unmasked_scores(images)
        self.baseline_scores = self._unmasked_scores(baseline.expand_as(images))
        self.relative = relative
        self.scale = _unit(self.reference, self.baseline_scores) if relative else torch.ones_like(self.reference)

    def for_images(self, images: Tensor, own_unit: bool = False) -> ConsistencyLoss:
        """Return the loss for X_i of Eq. 2, (B, C, H, W).

        The targets, the baseline and the unit of a relative J stay those of X_0.

        Args:
            own_unit: take the unit of X_i instead.
        """
        other = copy.copy(self)
        other.contrast = (images - self.baseline).contiguous(memory_format=LAYOUT)
        other.reference = self._unmasked_scores(images)
        if own_unit and self.relative:
            other.scale = _unit(other.reference, self.baseline_scores)
        return other

    @property
    def batch(self) -> int:
        """Masked images per forward, at present."""
        return self.limit.size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.targets)

    def noise_backgrounds(self, steps: int) -> Iterator[Tensor | None]:
        """Yield low-frequency noise (1, C, H, W) for the baseline; None if `noise` is 0.

        Each optimiser step has its own, so that masks do not overfit one baseline with texture that works on that one only. The grids of
        all steps are drawn at once and copied to the device at once: a copy in every step would make the host wait for the device. The
        numbers are those of one draw per step, as a grid has a multiple of 16 values, torch's block of normal numbers.
        """
        if not self.noise:
            yield from repeat(None, steps)
            return
        _, channels, height, width = self.contrast.shape
        grids = torch.randn(steps, 1, channels, _GRID, _GRID, generator=self._generator).to(self.contrast)
        for grid in grids:  # in the layout of the images: the masked images would be copied otherwise
            yield (self.noise * upsample(grid, height, width)).contiguous(memory_format=LAYOUT)

    def gradient(self, masks: Tensor, index: Tensor, background: Tensor | None = None, removal: Tensor | None = None) -> Tensor:
        """Return dJ/dM for each mask independently.

        Args:
            masks: (N, 1, H, W).
            index: (N,), the image that each mask is applied to.
            background: (1, C, H, W), added to the baseline.
            removal: (N,) bool, True for masks that should show no evidence of the class: there J is of d = (f_p(M X) - f_p(baseline)) /
                unit, the evidence that is left; None for none.

        Returns:
            (N, 1, H, W).
        """

        def compute(part: slice) -> Tensor:
            return self._gradient(self._inputs(masks[part], index[part], background, None if removal is None else removal[part]))

        gradient = self._in_batches(len(masks), compute)
        self.passes.add(len(masks))
        return gradient

    def scores(self, masks: Tensor, index: Tensor) -> Tensor:
        """Return f_p of masked images, (N,), without gradients.

        Args:
            masks: (N, 1, H, W).
            index: (N,), the image that each mask is applied to.
        """

        def score(part: slice) -> Tensor:
            inputs = self._inputs(masks[part], index[part])
            return self._activation(_masked(inputs)[0], inputs.targets)

        with torch.no_grad():
            scores = self._in_batches(len(masks), score)
        self.passes.add(len(masks))
        return scores

    def loss(self, activation: Tensor, inputs: PassInputs) -> Tensor:
        """Return J for the f_p of masked images, (N,).

        It is d^2 (`square`, the paper's), max(d, 0)^2 (`squared_hinge`), max(d, 0) (`hinge`) or d (`linear`) for what is missing,
        d = (f_p(X) - f_p(M X)) / unit.

        Args:
            activation: f_p of the masked images, (N,).
            inputs: of the pass.
        """
        missing = inputs.sign * (inputs.reference - activation) / inputs.scale
        if self.kind in ("hinge", "squared_hinge"):
            missing = missing.relu()
        return missing.square() if self.kind in ("square", "squared_hinge") else missing

    def _in_batches(self, rows: int, compute: Callable[[slice], Tensor]) -> Tensor:
        """Concatenate the results of `compute` on rows 0 .. rows - 1, one batch at a time.

        A batch that does not fit into memory is halved and tried again.
        """
        results: list[Tensor] = []
        start = 0
        while start < rows:
            stop = start + chunk_size(rows - start, self.batch)
            try:
                results.append(compute(slice(start, stop)))
                start = stop
            except RuntimeError as error:
                if not self.limit.shrink(error, stop - start):
                    raise
        return results[0] if len(results) == 1 else torch.cat(results)

    def _inputs(self, masks: Tensor, index: Tensor, background: Tensor | None = None, removal: Tensor | None = None) -> PassInputs:
        """Return the masks with what a pass reads of their images."""
        reference = self.reference[index]
        sign = torch.ones_like(reference)
        if removal is not None:
            reference, sign = torch.where(removal, self.baseline_scores[index], reference), torch.where(removal, -sign, sign)
        return PassInputs(
            masks,
            self.contrast[index].contiguous(memory_format=LAYOUT),
            self.baseline[index] if len(self.baseline) > 1 else self.baseline,
            background,
            self.targets[index],
            reference,
            sign,
            self.scale[index],
        )

    def _gradient(self, inputs: PassInputs) -> Tensor:
        """Return dJ/dM of a batch, by a CUDA graph where there is one."""
        if self._graphs is None:
            return self._pass(inputs)
        kind = type(self), self.activation, self.kind, self.problem_type, self.precision
        return self._graphs.gradient(self._pass, inputs, kind, self.batch, self._checked)

    @torch.enable_grad()
    def _pass(self, inputs: PassInputs) -> Tensor:
        """Run the network forward and backward; (N, 1, H, W)."""
        images, contrast = _masked(inputs)
        images.requires_grad_()
        with float32_arithmetic(images.device, tf32=self.precision == "tf32"):  # the backward, too
            loss = self.loss(self._activation(images, inputs.targets), inputs).sum()  # a sum keeps the images independent of each other
            return (gradient_of(loss, images) * contrast).sum(1, keepdim=True)

    @torch.no_grad()
    def _unmasked_scores(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=LAYOUT)
        return self._in_batches(len(images), lambda part: self._activation(images[part], self.targets[part]))

    def _activation(self, images: Tensor, targets: Tensor) -> Tensor:
        with in_precision(self.precision, images.device):
            # Kernels for a batch of one image round differently from those for two or more.
            inputs = images if len(images) > 1 or self.batch == 1 else images.expand(2, -1, -1, -1)
            logits = class_logits(self.network, inputs)[: len(images)].to(images.dtype)
        if self.activation == "log_odds":
            return log_odds(logits, targets, self.problem_type)
        scores = probabilities(logits, self.problem_type) if self.activation == "probability" else logits
        return scores.gather(1, targets[:, None])[:, 0]


def _unit(reference: Tensor, baseline_scores: Tensor) -> Tensor:
    """Return the unit of a relative J, |f_p(X) - f_p(baseline)|, or 1 where that is 0."""
    span = (reference - baseline_scores).abs()
    return torch.where(span == 0, torch.ones_like(span), span)


def _masked(inputs: PassInputs) -> tuple[Tensor, Tensor]:
    """Return the masked images and their derivatives by the masks, (N, C, H, W) each."""
    contrast, baseline = inputs.contrast, inputs.baseline
    if inputs.background is not None:
        contrast, baseline = contrast - inputs.background, baseline + inputs.background
    return torch.addcmul(baseline, inputs.masks, contrast).contiguous(memory_format=LAYOUT), contrast


def chunk_size(rows: int, batch: int) -> int:
    """Return the size of the next chunk of the remaining rows, at most `batch`.

    Chunks are of even size, because a last chunk of one or two rows is slow.
    """
    return -(-rows // -(-rows // batch))
