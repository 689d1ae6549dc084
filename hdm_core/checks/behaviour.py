"""Checks of a network's answers: repeatable, and of each image alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.checks.finding import Finding, refusals
from hdm_core.checks.outputs import agree, check_output, check_values
from hdm_core.checks.probes import probe_images
from hdm_core.classifier import Classifier
from hdm_core.network.gradients import refuses_gradient
from hdm_core.network.logits import class_logits
from hdm_core.network.outputs import find_logits

# Share of the spread of logits by which neighbours in a batch may change them. Networks that quantise on the fly: 0.8% to 4%. Batch
# statistics: 10% to 60%.
_QUANTISED = 0.06
_REPEATS = 3  # calls that tell a random answer from one that depends on the batch
_LOUD = 1e3  # times the spread of photographs


@dataclass(frozen=True)
class Behaviour:
    """Findings about a network's output, with the number of its classes."""

    classes: int
    findings: list[Finding]


def check_behaviour(classifier: Classifier, images: Tensor, batch: int = 4) -> Behaviour:
    """Check the output, its repetition, and each image alone and beside others.

    Args:
        images: (B, C, H, W), as the classifier's preprocess gives them.
        batch: upper limit of images per forward pass; with 1 there are no others.

    Raises:
        TypeError: if the network does not return (B, classes); exceptions of the network are not caught.
    """
    probes = probe_images(images)[: max(batch, 2)]
    # Inference mode first: to leave it turns gradients on, also for weights that a network makes in its forward.
    with torch.inference_mode(False), torch.no_grad(), _random_state(probes.device), classifier.frozen() as network:
        output = _output_with_graph(network, probes[:1])
        differentiable = class_logits(lambda _: output, probes[:1])
        alone = torch.cat([differentiable.detach(), *(class_logits(network, probe[None]) for probe in probes[1:])])
        findings = [check_output(alone, differentiable, lambda: _loud_logits(network, probes[-1:]), classifier.problem_type)]
        if not isinstance(output, Tensor):
            taken = f"the network returns a {type(output).__name__}; its output {find_logits(output, 1)[0]!r} is taken as the logits"
            findings.append(Finding("output", "handled", taken))
        if not refusals(findings) and (values := check_values(alone)):
            findings.append(values)
        if not refusals(findings):
            again = torch.cat([class_logits(network, probe[None]) for probe in probes])
            findings.append(_check_repetition(network, alone, again))
        if not refusals(findings) and batch > 1:
            batched = _check_batch(network, alone, probes)
            findings = [finding for finding in findings if finding.subject != batched.subject] + [batched]
    return Behaviour(alone.shape[1], findings)


def _output_with_graph(network: nn.Module, image: Tensor) -> object:
    """Return the output for an image that requires a gradient.

    A network outside torch, such as one of ONNX Runtime, may refuse such an image: then the image is given without.
    """
    with torch.enable_grad():
        try:
            return network(image.clone().requires_grad_())
        except RuntimeError as error:
            if not refuses_gradient(error):
                raise
    return network(image)


def _loud_logits(network: nn.Module, image: Tensor) -> Tensor:
    """Return the logits of an image and its negative, far beyond any photograph."""
    return torch.cat([class_logits(network, factor * image) for factor in (_LOUD, -_LOUD)])


def _check_repetition(network: nn.Module, first: Tensor, second: Tensor) -> Finding:
    """Judge the logits of images in two equal calls."""
    if agree(second, first):
        return Finding("repetition", "ok", "the same images give the same logits")
    return _random_answer(network)


def _random_answer(network: nn.Module) -> Finding:
    """Refuse a network whose logits differ between equal calls."""
    training = [name for name, module in network.named_modules() if module.training]
    cause = (
        f"{training[0] or 'the network'} stays in training mode after eval()" if training else "dropout or another random draw is active"
    )
    return Finding("repetition", "refused", f"the same images give other logits in a second call ({cause}): make evaluation repeatable")


def _check_batch(network: nn.Module, alone: Tensor, probes: Tensor) -> Finding:
    """Run images in one batch that were run one by one, and compare the logits.

    The finding is about the repetition where equal batches differ, and about the independence otherwise. An exception of the network gets a
    note: it took the images one by one.
    """
    try:
        together = class_logits(network, probes)
    except Exception as error:
        error.add_note(
            f"the network takes one image and fails for a batch of {len(probes)}: let it take any number of images, such as by "
            "torch.cat([forward(image) for image in images.split(1)])"
        )
        raise
    if agree(alone, together):
        return Finding("independence", "ok", "an image has the same logits alone and beside others")
    difference = float((alone - together).abs().amax())
    # A random answer whose first two calls agreed, by luck, within rounding: its equal batches differ as much.
    repeated = [float((class_logits(network, probes) - together).abs().amax()) for _ in range(_REPEATS)]
    if max(repeated) > difference / 2:
        return _random_answer(network)
    text = f"an image's logits depend on the others in its batch (by up to {difference:.3g}), and so would its map"
    if agree(alone, together, _QUANTISED):
        return Finding("independence", "doubtful", f"{text}, slightly, as with weights that are quantised on the fly")
    advice = "use normalisation with running statistics, and nothing that is computed over the batch"
    return Finding("independence", "refused", f"{text}: {advice}")


def _random_state(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that restores the random numbers of torch."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
