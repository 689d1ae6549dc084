"""`explain`: a batch of images in, maps with a status each out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hdm_core.batch_limit import BatchLimit
from hdm_core.checks.require import require, require_precision, require_same_type
from hdm_core.classifier import Classifier, as_classifier
from hdm_core.device import Precision, default_batch, default_precision, largest_batch
from hdm_core.explanation import Explanation, Status
from hdm_core.integers import as_integer
from hdm_core.masking.baseline_scores import BaselineScores
from hdm_core.masking.baselines import BASELINES
from hdm_core.masking.pass_counter import PassCounter, Progress
from hdm_core.methods import ExplainJob, get_method
from hdm_core.network.hooks import forward_to
from hdm_core.network.logits import class_logits, require_logits, resolve_targets
from hdm_core.settings import Baseline, Settings
from hdm_core.targets import Targets, contrasting, one_target, resolve_contrasts, target_numbers


def explain(
    classifier: Classifier | nn.Module,
    images: Tensor,
    method: str = "hdm",
    preset: str | None = None,
    targets: Targets = None,
    *,
    target: Targets = None,
    contrast: Targets = None,
    batch: int | None = None,
    precision: Precision | None = None,
    progress: Progress | None = None,
    cuda_graphs: bool = True,
    **settings: Any,
) -> Explanation:
    """Explain a classifier's decision for every image of a batch.

    The classifier is left as it was found, also after an exception. An image's map does not depend on the others in its batch.

    Args:
        classifier: a `Classifier`, or a plain network that maps images to logits.
        images: (B, C, H, W) as the classifier's preprocess gives them.
        method: an id of the registry, see `METHODS`.
        preset: named settings of the method; its default if None.
        targets: the class to explain, by number or, if the classifier has names, by name: one for all, one per image, or None for the
            class that the network predicts.
        target: another name of `targets`, captum's.
        contrast: a class, as for `targets`, or "runner_up" for the likeliest class beside the target. The map then explains why the target
            and not that class: the difference of both logits.
        batch: upper limit of (masked) images per forward pass; None leaves it to the device.
        precision: of the network while HDM, DM, Mask and RISE try masks; None leaves it to the device.
        progress: called with the number of passes just done.
        cuda_graphs: on CUDA capture the passes of HDM, DM and Mask once and replay them, which saves the time to launch their kernels.
        settings: single settings that replace the preset's.

    Raises:
        ValueError: for an unknown method, preset or setting, targets that fit neither batch nor network, images of a wrong shape, or a
            network whose explanation would be wrong: probabilities instead of logits, images that influence each other, random answers, no
            gradient to the input for a method that needs one; `check` lists what is measured.
        TypeError: if the network does not return (B, classes).

    Example:
        >>> import torch
        >>> from hdm_core import explain
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> images = torch.rand(2, 3, 16, 16)
        >>> explanation = explain(network, images, "grad_cam", target=[1, 3])
        >>> explanation.maps.shape, explanation.targets.tolist()
        (torch.Size([2, 16, 16]), [1, 3])
        >>> explain(network, images, "hdm", sizes=[4], ratios=[2], steps=2, stages=2, mix_steps=2).stages.shape
        torch.Size([2, 2, 16, 16])
    """
    classifier, entry = as_classifier(classifier), get_method(method)
    given, resolved = one_target(target, targets), entry.configure(preset, **settings)
    images = images_on_device(classifier, images)
    limit = resolve_batch_limit(classifier, batch, method)
    limit.run(lambda size: require(classifier, images, size, entry.is_concerned if entry.backward else None))
    options: dict[str, Any] = {"batch": limit, "precision": precision, "progress": progress, "cuda_graphs": cuda_graphs}
    return explain_with(classifier, images, method, resolved, given, contrast=contrast, **options)


def explain_with(
    classifier: Classifier,
    images: Tensor,
    method: str,
    settings: Settings,
    targets: Targets = None,
    *,
    contrast: Targets = None,
    batch: int | BatchLimit | None = None,
    precision: Precision | None = None,
    progress: Progress | None = None,
    cuda_graphs: bool = True,
) -> Explanation:
    """Explain as `explain` does, with settings that are already resolved.

    The classifier is not checked beyond its logits for these images: see `check`. If memory runs out, the method starts again with half the
    batch size; `passes` counts the last attempt alone.

    Args:
        batch: as for `explain`, or a limit that is shared with other calls.
    """
    images = images_on_device(classifier, images)
    limit = resolve_batch_limit(classifier, batch, method)
    precision = precision or default_precision(classifier.device)

    def attempt(_: int) -> Explanation:
        return _explain(classifier, images, method, settings, targets, contrast, limit, precision, PassCounter(progress), cuda_graphs)

    return limit.run(attempt)


def _explain(
    classifier: Classifier,
    images: Tensor,
    method: str,
    settings: Settings,
    targets: Targets,
    contrast: Targets,
    limit: BatchLimit,
    precision: Precision,
    passes: PassCounter,
    cuda_graphs: bool,
) -> Explanation:
    """Explain images that are on the device, with the limit's present batch size."""
    batch, entry = limit.size, get_method(method)
    with torch.inference_mode(False), classifier.frozen() as network, torch.enable_grad():
        output = None
        if (entry.layer or entry.from_input) and len(images) <= batch and contrast is None:
            output = forward_to(network, entry.layer(network, settings, images) if entry.layer else None, images)
            logits = output.logits.detach()
        else:
            with torch.no_grad():
                logits = torch.cat([class_logits(network, part) for part in torch.split(images, batch)])
        problem_type = classifier.problem_type
        classes = resolve_targets(require_logits(logits, problem_type), target_numbers(targets, classifier), problem_type)
        scores, contrasts = logits.gather(1, classes[:, None])[:, 0], None
        job = ExplainJob(classifier, images, classes, batch, passes, precision, output, limit, cuda_graphs, logits)
        if contrast is not None:
            contrasts = resolve_contrasts(classifier, logits, classes, contrast)
            scores = scores - logits.gather(1, contrasts[:, None])[:, 0]
            of_pairs, pairs = contrasting(classifier, classes, contrasts)
            job = replace(job, classifier=of_pairs, targets=pairs)
        raw = entry.run(job, settings)
    maps, status, ok = _check(raw.maps.float(), scores)
    return Explanation(
        maps,
        status,
        classes,
        logits.float(),
        passes.total // len(images),
        raw.stages,
        raw.stage_weights,
        method,
        classifier.preprocess,
        contrasts,
        _baselines(settings, raw.baseline_scores, len(images)),
        raw.baseline_scores,
        None if raw.signed is None else _scaled(raw.signed.float(), ok),
    )


def _baselines(settings: Settings, scores: BaselineScores | None, images: int) -> list[Baseline] | None:
    """Return the baseline of every image's map; None for a method without one."""
    if scores is not None:
        return [scores.kinds[number] for number in scores.largest_contrast().tolist()]
    kind = getattr(settings, "baseline", None)  # of a plugin it may be anything
    return [kind] * images if isinstance(kind, str) and kind in BASELINES else None


def _scaled(signed: Tensor, ok: Tensor) -> Tensor:
    """Scale signed values (B, H, W) by an image's largest absolute value to [-1, 1].

    Zero stays zero.

    Args:
        ok: (B,) bool; the values of other images become zeros.
    """
    signed = torch.where(ok[:, None, None], signed, 0.0)
    largest = signed.abs().amax((1, 2), keepdim=True)
    return signed / torch.where(largest > 0, largest, 1.0)


@torch.inference_mode(False)
def images_on_device(classifier: Classifier, images: Tensor) -> Tensor:
    """Return the images on the network's device, as tensors that gradients can use.

    Raises:
        ValueError: if they are no batch of floats, or have another data type than the network's weights.
    """
    if images.ndim != 4 or not images.is_floating_point() or len(images) == 0:
        raise ValueError(f"images must be a batch of floats (B, C, H, W), not {tuple(images.shape)} {images.dtype}")
    require_same_type(classifier, images)
    require_precision(images.dtype)
    images = images.detach().to(classifier.device)
    return images.clone() if images.is_inference() else images


def resolve_batch_limit(classifier: Classifier, batch: int | BatchLimit | None, method: str) -> BatchLimit:
    """Return the upper limit of images per forward pass."""
    if isinstance(batch, BatchLimit):
        batch.size = min(batch.size, largest_batch(classifier.device))
        return batch
    batch = default_batch(classifier.device) if batch is None else as_integer("batch", batch)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    return BatchLimit(min(batch, largest_batch(classifier.device)), method)


def _check(maps: Tensor, logits: Tensor) -> tuple[Tensor, list[Status], Tensor]:
    """Return the maps (B, H, W) with a status each, and which are ok, (B,) bool.

    A map whose status is not ok becomes zeros. A logit (B,) that is NaN or infinite makes the status nan.
    """
    pixels = maps.flatten(1)
    nan = ~(pixels.isfinite().all(1) & logits.isfinite())
    flat = ~nan & (pixels.amax(1) == pixels.amin(1))
    rows = torch.stack([nan, flat], 1).tolist()  # one wait for the device, not two
    status: list[Status] = ["nan" if is_nan else "flat" if is_flat else "ok" for is_nan, is_flat in rows]
    return torch.where((nan | flat)[:, None, None], 0.0, maps), status, ~(nan | flat)
