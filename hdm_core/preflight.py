"""`check`: what explanations assume of a classifier, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hdm_core.checks.behaviour import check_behaviour
from hdm_core.checks.finding import Finding, refusals
from hdm_core.checks.folding import check_folding
from hdm_core.checks.gradient import check_gradient
from hdm_core.checks.inputs import check_inputs
from hdm_core.checks.probes import probe_images
from hdm_core.checks.require import require_precision
from hdm_core.classifier import Classifier, as_classifier
from hdm_core.device_errors import is_fatal
from hdm_core.messages import one_line, typed_line
from hdm_core.methods import METHODS, get_method
from hdm_core.methods.check import check_methods
from hdm_core.network.outputs import OutputError
from hdm_core.settings import Settings


@dataclass(frozen=True)
class CheckResult:
    """Findings about a classifier, for some methods.

    Attributes:
        classifier: its name.
        methods: ids of the methods that were asked about.
        photographs: number of photographs that were used, beside noise.
        classes: number of logits; None if the network returns none.
        findings: in the order of the checks.
    """

    classifier: str
    methods: tuple[str, ...]
    photographs: int
    classes: int | None
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> str:
        """All refusals in one line; empty if there are none."""
        return refusals(self.findings)

    @property
    def usable(self) -> tuple[str, ...]:
        """Ids of the methods that are not refused."""
        refused = [finding for finding in self.findings if finding.verdict == "refused"]
        return tuple(method for method in self.methods if not any(not each.methods or method in each.methods for each in refused))

    def as_dict(self) -> dict[str, Any]:
        """Return the facts that `hdm check --json` prints."""
        return {
            "classifier": self.classifier,
            "photographs": self.photographs,
            "classes": self.classes,
            "usable": list(self.usable),
            "refused": [method for method in self.methods if method not in self.usable],
            "findings": [finding.as_dict() for finding in self.findings],
        }


def check(
    classifier: Classifier | nn.Module, images: Tensor | None = None, methods: Iterable[str] | Mapping[str, Settings] | None = None
) -> CheckResult:
    """Measure what explanations assume of a classifier.

    On photographs and on noise: the output is logits, the same in every call, of each image alone; a gradient reaches the input; the folded
    copy agrees; each method finds what it needs; the photographs' values are those of the training. The classifier is left as it was.

    Args:
        images: (B, C, H, W), photographs as the classifier's preprocess gives them; noise alone if None.
        methods: ids, or ids with settings; all methods with their default settings if None.

    Raises:
        ValueError: if there are neither images nor a preprocess whose size noise could have.

    Example:
        >>> import torch
        >>> from hdm_core import check
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> [finding.verdict for finding in check(network, torch.rand(2, 3, 16, 16), ["gradient"]).findings]
        ['ok', 'ok', 'ok', 'ok', 'ok', 'ok']
        >>> check(torch.nn.Sequential(network, torch.nn.Softmax(1)), torch.rand(2, 3, 16, 16)).usable
        ()
    """
    classifier = as_classifier(classifier)
    settings = _settings(methods)
    shown = _noise_size(classifier) if images is None else images.to(classifier.device, classifier.dtype or images.dtype)
    photographs, ids = 0 if images is None else len(images), tuple(settings)
    try:
        require_precision(shown.dtype)
        behaviour = check_behaviour(classifier, shown)
    except Exception as error:  # the network's forward may raise any exception
        if is_fatal(error):
            raise
        reason = str(error) if shown.dtype.itemsize < 4 else _not_taken(classifier, shown, error)
        return CheckResult(classifier.name, ids, photographs, None, (Finding("output", "refused", reason),))
    findings = behaviour.findings
    if not refusals(findings):  # all else is measured by logits that are right and repeatable
        findings = findings + _check_explanations(classifier, shown, images is not None, settings)
    return CheckResult(classifier.name, ids, photographs, behaviour.classes, tuple(findings))


def _check_explanations(classifier: Classifier, images: Tensor, are_photographs: bool, settings: Mapping[str, Settings]) -> list[Finding]:
    """Check what the methods need, and the preprocessing."""
    findings: list[Finding] = []
    without_gradient: tuple[str, ...] = ()
    if any(get_method(method).backward for method in settings):
        finding = _guarded("gradient", lambda: check_gradient(classifier, images))
        concerned = tuple(method for method in settings if get_method(method).is_concerned(finding))
        if finding.verdict == "refused":
            finding, without_gradient = replace(finding, methods=concerned), concerned
        if concerned:
            findings.append(finding)
    findings.append(check_folding(classifier, images))
    image = probe_images(images, 1)[:1]
    findings += check_methods(classifier, image, {method: each for method, each in settings.items() if method not in without_gradient})
    if are_photographs:
        findings.append(_guarded("preprocessing", lambda: check_inputs(classifier, images)))
    return findings


def _guarded(subject: str, run: Callable[[], Finding]) -> Finding:
    """Return the finding of a check, or a refusal if the network raises in it."""
    try:
        return run()
    except Exception as error:  # the network's forward and backward may raise any exception
        if is_fatal(error):
            raise
        return Finding(subject, "refused", typed_line(error))


def _settings(methods: Iterable[str] | Mapping[str, Settings] | None) -> Mapping[str, Settings]:
    if isinstance(methods, Mapping):
        return methods
    return {method: get_method(method).configure() for method in (METHODS if methods is None else methods)}


def _noise_size(classifier: Classifier) -> Tensor:
    """Return an image of the preprocess's size, whose spread the noise takes.

    It is blank, for noise of spread 1, unless the preprocess has another.
    """
    if classifier.preprocess is None:
        raise ValueError("check needs images, or a classifier with a preprocess: noise has no size otherwise")
    image = classifier.preprocess.blank()
    if classifier.preprocess.spread != 1:
        image = classifier.preprocess.spread * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return image.to(classifier.device, classifier.dtype)


def _not_taken(classifier: Classifier, images: Tensor, error: Exception) -> str:
    """Describe a network that raises for images of this shape."""
    if isinstance(error, OutputError):
        return str(error)
    if notes := getattr(error, "__notes__", None):
        return f"{notes[0]} ({one_line(error)})"
    _, channels, height, width = images.shape
    first = next((module for module in classifier.module.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels and type(first).forward is nn.Conv2d.forward:
        return (
            f"channels: the first convolution of the network takes {first.in_channels}, and images have {channels}: "
            "give as many values of mean and std, and channels in a configuration"
        )
    return f"the network does not take images of {height} x {width} ({one_line(error)})"
