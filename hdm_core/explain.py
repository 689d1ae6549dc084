"""`explain`: a batch of images in, maps with a status each out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.device import Precision, default_batch, default_precision, largest_batch
from hdm_core.masking.consistency import PassCounter, Progress
from hdm_core.methods import ExplainJob, get_method
from hdm_core.network.hooks import forward_to
from hdm_core.network.logits import Targets, class_logits, resolve_targets
from hdm_core.settings import Settings

Status = Literal["ok", "flat", "nan"]


@dataclass(frozen=True)
class Explanation:
    """What `explain` returns for B images, on the classifier's device.

    Attributes:
        maps: (B, H, W) float32 in [0, 1]; all zeros where the status is not ok.
        status: "ok"; "flat" if the map is constant; "nan" if the method diverged.
        targets: (B,) int64, the class that each map explains.
        logits: (B, classes) float32, the network's answer for the untouched images.
        passes: forward and backward passes spent on each image.
        stages: (B, S, H, W), HDM's M_i before mixing, else None.
        stage_weights: (B, S), their shares, which sum to 1, else None.
    """

    maps: Tensor
    status: list[Status]
    targets: Tensor
    logits: Tensor
    passes: int
    stages: Tensor | None = None
    stage_weights: Tensor | None = None


def explain(
    classifier: Classifier,
    images: Tensor,
    method: str = "hdm",
    preset: str | None = None,
    targets: Targets = None,
    *,
    batch: int | None = None,
    precision: Precision | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Explanation:
    """Explains a classifier's decision for every image of a batch.

    The classifier is left as it was found, also after an exception. An image's map does not depend on the others in its batch.

    Args:
        images: (B, C, H, W) as the classifier's preprocess gives them.
        method: an id of the registry, see `METHODS`.
        preset: named settings of the method; its default if None.
        targets: the class to explain: one for all, one an image, or None for the class that the network predicts.
        batch: at most so many (masked) images go through the network at once; None leaves it to the device.
        precision: of the network while HDM, DM, Mask and RISE try masks; None leaves it to the device.
        progress: called with the number of passes just done.
        settings: single settings that replace the preset's.

    Raises:
        ValueError: for an unknown method, preset or setting, targets that fit neither batch nor network, or images of a wrong shape.
        TypeError: if the network does not return (B, classes).
    """
    entry = get_method(method)
    return explain_with(
        classifier, images, method, entry.configure(preset, **settings), targets, batch=batch, precision=precision, progress=progress
    )


def explain_with(
    classifier: Classifier,
    images: Tensor,
    method: str,
    settings: Settings,
    targets: Targets = None,
    *,
    batch: int | None = None,
    precision: Precision | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """As `explain`, with settings that are already resolved."""
    if images.ndim != 4 or not images.is_floating_point() or len(images) == 0:
        raise ValueError(f"images must be a batch of floats (B, C, H, W), not {tuple(images.shape)} {images.dtype}")
    batch = default_batch(classifier.device) if batch is None else batch
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    batch = min(batch, largest_batch(classifier.device))
    if classifier.dtype not in (None, images.dtype):
        raise ValueError(f"the network's weights are {classifier.dtype} and the images {images.dtype}: convert one, such as module.float()")
    images = images.detach().to(classifier.device)
    precision = precision or default_precision(classifier.device)
    passes, entry = PassCounter(progress), get_method(method)
    with classifier.frozen() as network, torch.enable_grad():
        answer = None
        if (entry.layer or entry.from_input) and len(images) <= batch:
            answer = forward_to(network, entry.layer(network, settings, images) if entry.layer else None, images)
            logits = answer.logits.detach()
        else:
            with torch.no_grad():
                logits = torch.cat([class_logits(network, part) for part in torch.split(images, batch)])
        chosen = resolve_targets(logits, targets)
        raw = entry.run(ExplainJob(classifier, images, chosen, batch, passes, precision, answer), settings)
    maps, status = _check(raw.maps.float(), logits.gather(1, chosen[:, None])[:, 0])
    return Explanation(maps, status, chosen, logits.float(), passes.total // len(images), raw.stages, raw.stage_weights)


def _check(maps: Tensor, logits: Tensor) -> tuple[Tensor, list[Status]]:
    """Gives every map (B, H, W) its status and blanks those that say nothing, as none does of a logit (B,) that is no number."""
    pixels = maps.flatten(1)
    nan = ~(pixels.isfinite().all(1) & logits.isfinite())
    flat = ~nan & (pixels.amax(1) == pixels.amin(1))
    status: list[Status] = ["nan" if n else "flat" if f else "ok" for n, f in zip(nan.tolist(), flat.tolist(), strict=True)]
    return torch.where((nan | flat)[:, None, None], 0.0, maps), status
