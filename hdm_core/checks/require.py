"""Refusal of a classifier whose explanations or metrics would be wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from hdm_core.checks.behaviour import check_behaviour
from hdm_core.checks.cache import cached
from hdm_core.checks.finding import Finding, refusals
from hdm_core.checks.gradient import check_gradient
from hdm_core.classifier import Classifier


def require_precision(dtype: torch.dtype) -> None:
    """Refuse a data type in which maps would be rounding.

    Raises:
        ValueError: for float16, bfloat16 and smaller ones.
    """
    if dtype.itemsize < 4:  # maps then differ from those of float32 by up to 0.1, and those of trained masks altogether
        raise ValueError(f"gradients in {dtype} round too much for a map: convert network and images, such as module.float()")


def require_same_type(classifier: Classifier, images: Tensor) -> None:
    """Refuse images of another data type than the network's weights.

    Raises:
        ValueError: if they differ.
    """
    if classifier.dtype not in (None, images.dtype):
        raise ValueError(f"the network's weights are {classifier.dtype} and the images {images.dtype}: convert one, such as module.float()")


def require(classifier: Classifier, images: Tensor, batch: int, concerns: Callable[[Finding], bool] | None = None) -> int:
    """Check a classifier on the images at hand, if it is new or has changed.

    What is doubtful becomes a warning. Logits that are not finite or never change are left to the status of each map.

    Args:
        images: (B, C, H, W), as the classifier's preprocess gives them, on its device.
        batch: upper limit of images per forward pass.
        concerns: whether a finding about the gradient concerns the method; None for no gradient at all.

    Returns:
        The number of classes.

    Raises:
        ValueError: if explanations or metrics would be wrong.
        TypeError: if the network does not return (B, classes).
    """
    network, shape = classifier.module, (tuple(images.shape[1:]), images.dtype, classifier.problem_type)
    behaviour = cached(network, ("behaviour", shape, batch == 1), lambda: check_behaviour(classifier, images, batch))
    findings = list(behaviour.findings)
    if concerns is not None and findings[0].verdict != "refused":
        by_gradient = cached(network, ("gradient", shape, batch == 1), lambda: [check_gradient(classifier, images, batch)])
        # Without repeatable and independent logits a gradient differs for that reason.
        refused_before = bool(refusals(findings))
        findings += [each for each in by_gradient if concerns(each) and not (refused_before and each.subject == "single image")]
    findings = [finding for finding in findings if finding.subject != "values"]
    if refused := refusals(findings):
        raise ValueError(refused)
    for finding in findings:
        if finding.verdict == "doubtful":
            warnings.warn(f"{classifier.name}: {finding.text}", stacklevel=3)
    return behaviour.classes
