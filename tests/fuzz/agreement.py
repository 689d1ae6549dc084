"""What hdm does with a classifier of the grammar, beside what is true: it agrees with the reference, or refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, Explanation, evaluate, explain
from hdm_core.testing.networks import Untraceable
from tests.fuzz import references
from tests.fuzz.grammar import Network, Spec, build, core
from tests.fuzz.taps import leaf

# Settings with which a method is quick on small images.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "hdm": {"start": "tau", "sizes": (4,), "ratios": (2,), "steps": 2, "stages": 2, "mix_steps": 2},
    "dm": {"start": "tau", "sizes": (4,), "ratios": (2,), "steps": 2},
    "mask": {"steps": 3, "circles": 3, "cell": 4, "blur": 1.0, "jitter": 2},
    "rise": {"masks": 16, "cells": 3},
    "integrated_gradients": {"steps": 4},
    "smooth_grad": {"samples": 3},
    "expected_gradients": {"samples": 3},
    "occlusion": {"window": 0.5},
    "opti_cam": {"steps": 2},
    "igos_pp": {"steps": 2, "points": 2, "cells": 4},
}
CAMS = tuple(name for name, method in METHODS.items() if method.layer)
# They read attention maps of transformers, which the grammar has not.
ATTENTION = tuple(name for name, method in METHODS.items() if method.needs_attention)
# They need the gradient of a logit to the input.
GRADIENTS = (
    *("gradient", "integrated_gradients", "deeplift", "full_grad", "hdm", "dm", "mask"),
    *("smooth_grad", "input_x_gradient", "expected_gradients", "igos_pp"),
)
# No map and no metric of such a classifier means anything.
MEANINGLESS = {
    "norm:batch_no_statistics": "images influence each other",
    "odd:batch_mean": "images influence each other",
    "odd:batch_statistics": "images influence each other",
    "odd:random_dropout": "the answer is random",
    "odd:noise": "the answer is random",
    "ending:softmax": "probabilities",
    "ending:sigmoid": "probabilities",
    "classes:1": "one logit",
}
# These add numbers, which are in no map, and which the references do not count.
ADDS_NUMBERS = ("odd:half_detached", "odd:view_in_place", "odd:user_pre_hook")
# A share of FullGrad's terms whose absence changes no map.
NEGLIGIBLE = 2e-4
# An error of the map that counts as rounding, and one that makes a comparison meaningless.
ROUNDING, UNSTABLE = {True: 1e-5, False: 1e-3}, 0.05

Outcome = str  # "agrees", "unstable", or the words of a refusal


class FaultError(AssertionError):
    """Neither agreement nor refusal."""


def examine(spec: Spec, method: str) -> Outcome:
    """Explain a classifier by a method and compare the maps with the reference's.

    Returns:
        "agrees"; "unstable" where images that differ by rounding have other maps; or the words of a refusal.

    Raises:
        FaultError: for a wrong map, for a map of a classifier that has none, and for any other exception.
    """
    images = spec.images()
    answer = attempt(lambda: explain(Classifier(build(spec)), images, method, **SETTINGS.get(method, {})))
    if isinstance(answer, str):
        return answer
    if reasons := sorted({MEANINGLESS[name] for name in spec.names & MEANINGLESS.keys()}):
        raise FaultError(f"{method} explains a classifier although {', '.join(reasons)}")
    if method in ATTENTION:
        raise FaultError(f"{method} explains a classifier without blocks of tokens: {answer.status}")
    if method in GRADIENTS and not _gradient_reaches_input(spec):
        raise FaultError(f"{method} explains a classifier whose gradient does not reach the input: {answer.status}")
    with torch.compiler.set_stance("force_eager"):
        return _compare(spec, method, answer)


def attempt(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the words with which it refuses."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        words = str(error)
        if "\n" in words or not words:
            raise FaultError(f"{type(error).__name__} is not in one line: {words!r}") from error
        return words
    except Exception as error:
        raise FaultError(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error


def _gradient_reaches_input(spec: Spec) -> bool:
    x = leaf(spec.images())
    score = core(spec).requires_grad_(False)(x).sum()
    return bool(score.requires_grad and torch.autograd.grad(score, x, allow_unused=True)[0] is not None)


def plain(spec: Spec, dtype: torch.dtype) -> Network:
    """Build the network of the references, without checkpoints, which call a part twice."""
    return core(dataclasses.replace(spec, odd="counter") if "checkpoint" in spec.odd else spec).to(dtype)


def _compare(spec: Spec, method: str, answer: Explanation) -> Outcome:
    images = spec.images().double()
    logits = plain(spec, torch.float64)(images).detach()
    if not torch.allclose(answer.logits.double(), logits, rtol=1e-3, atol=1e-4 * float(logits.abs().max())):
        raise FaultError(f"{method} reports other logits: {answer.logits.tolist()} for {logits.tolist()}")
    reference = references_of(spec, method, answer.targets.tolist())
    expected = reference(images)
    if "nan" in answer.status:
        return "unstable"
    error = float((answer.maps.double() - expected).abs().max())
    if error <= ROUNDING[spec.double]:
        return "agrees"
    noise = (1e-11 if spec.double else 3e-7) * torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=images.dtype)
    others = [reference(images + noise), *([] if spec.double else [reference(images.float())])]
    if method == "deeplift":  # of equal pixels of a blank image any may be the largest in a max-pool
        others.append(torch.stack([_nearly_blank(spec, *pair) for pair in zip(images, answer.targets.tolist(), strict=True)]))
    sensitivity = max(float((other - expected).abs().nan_to_num(1).max()) for other in others)
    tolerance = ROUNDING[spec.double] + 10 * sensitivity
    if tolerance > UNSTABLE:
        return "unstable"
    if error > tolerance:
        correlation = torch.corrcoef(torch.stack([answer.maps.double().flatten(), expected.flatten()]))[0, 1]
        raise FaultError(f"{method} is wrong by {error:.2g} of 1, correlation {correlation:.3f}, status {answer.status}")
    return "agrees"


def references_of(spec: Spec, method: str, targets: list[int]) -> Callable[[Tensor], Tensor]:
    """Return the reference of a method: images, in the type of which its network computes -> maps, float64."""

    def each(one: Callable[[Callable[[], Network], Tensor, int], Tensor]) -> Callable[[Tensor], Tensor]:
        def maps(images: Tensor) -> Tensor:
            return torch.stack([one(lambda: plain(spec, images.dtype), *pair) for pair in zip(images, targets, strict=True)])

        return maps

    match method:
        case "gradient":
            return each(lambda build, image, target: references.gradient(build(), image, target))
        case "integrated_gradients":
            return each(lambda build, image, target: references.integrated_gradients(build(), image, target, 4))
        case "deeplift":
            return each(lambda build, image, target: references.deeplift(build(), image, target))
        case "full_grad":
            return each(lambda build, image, target: _complete_full_grad(spec, build(), image, target))
        case "opti_cam":  # its masks need the whole network in every step
            return lambda images: _unfolded(spec, method, images, targets).maps.double()
        case _ if method in CAMS:
            name = layer_name(spec, method)
            return each(lambda build, image, target: references.cam(method, build, name, image, target))
    return lambda images: _unfolded(spec, method, images, targets).maps.double()


def _nearly_blank(spec: Spec, image: Tensor, target: int) -> Tensor:
    return references.deeplift(plain(spec, torch.float64), image, target, -1e-9)


def _complete_full_grad(spec: Spec, network: Network, image: Tensor, target: int) -> Tensor:
    full, missing = references.full_grad(network, image, target)
    if missing > NEGLIGIBLE and f"odd:{spec.odd}" not in ADDS_NUMBERS:
        raise FaultError(f"full_grad explains a network although its terms miss {missing:.2g} of the logit")
    return full


def _unfolded(spec: Spec, method: str, images: Tensor, targets: list[int]) -> Explanation:
    """Explain with a network that cannot be folded."""
    network = Untraceable(core(spec))
    return explain(Classifier(network), images.to(spec.dtype), method, targets=targets, **SETTINGS.get(method, {}))


def layer_name(spec: Spec, method: str) -> str:
    """Return the name that the layer of a CAM has in `core`."""
    classifier, entry = Classifier(build(spec)), METHODS[method]
    with classifier.frozen() as network:
        assert entry.layer is not None
        layer: Any = entry.layer(network, entry.configure(), spec.images())
        module = layer if isinstance(layer, nn.Module) else layer.module
        name = next(name for name, each in network.named_modules() if each is module)
    network = core(spec)
    while name:
        try:
            network.get_submodule(name)
        except AttributeError:
            name = name.partition(".")[2]
        else:
            return name
    raise FaultError(f"{method} explains at a wrapper")


def examine_metrics(spec: Spec) -> Outcome:
    """Evaluate maps with the classifier and with its plain network, and compare."""
    images = spec.images()
    maps = torch.rand(images[:, 0].shape, generator=torch.Generator().manual_seed(0))
    answer = attempt(lambda: evaluate(Classifier(build(spec)), images, maps, 0))
    if isinstance(answer, str):
        return answer
    if reasons := sorted({MEANINGLESS[name] for name in spec.names & MEANINGLESS.keys()}):
        raise FaultError(f"metrics are measured although {', '.join(reasons)}")
    with torch.compiler.set_stance("force_eager"):
        plain = evaluate(Classifier(Untraceable(core(spec))), images, maps, 0)
    for curve in ("deletion", "insertion"):
        error = float((getattr(answer, curve) - getattr(plain, curve)).abs().max())
        if error > 1e-4 * max(1.0, spec.scale / 10):
            raise FaultError(f"{curve} is wrong by {error:.2g}")
    return "agrees"
