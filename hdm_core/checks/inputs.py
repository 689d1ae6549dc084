"""Check of the preprocessing: do photographs arrive as the network was trained?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hdm_core.checks.finding import Finding
from hdm_core.classifier import Classifier
from hdm_core.network.logits import class_logits

# Photographs of any kind stay within these, values scaled wrongly (0 to 255 instead of 0 to 1) are beyond them by a factor of 10 and more.
_SPREAD = 6.0  # ratio of the standard deviations that the first batch normalisation sees and was trained on
_SHIFT = 6.0  # difference of the means, in standard deviations of the training
_LARGEST_MEAN, _SPREADS = 20.0, (0.01, 20.0)  # of the input, where no batch normalisation can be asked


@torch.no_grad()
def check_inputs(classifier: Classifier, photographs: Tensor) -> Finding:
    """Compare preprocessed photographs with the statistics of the network's training.

    The first batch normalisation has the mean and variance of its input in training. Without one only the values' range is judged.

    Args:
        photographs: (B, C, H, W), as the classifier's preprocess gives them.
    """
    mean, deviation = float(photographs.mean()), float(photographs.std())
    values = (
        f"{len(photographs)} photographs of {photographs.shape[2]} x {photographs.shape[3]}: values {float(photographs.amin()):.3g} to "
        f"{float(photographs.amax()):.3g}, mean {mean:.3g}, standard deviation {deviation:.3g}"
    )
    if getattr(classifier.module, "transform_input", False) is True:
        values += "; transform_input converts them to another mean and standard deviation, as in torchvision's pretrained networks"
    if deviation == 0:
        return Finding("preprocessing", "doubtful", f"{values}; they are of one colour")
    seen = _first_statistics(classifier, photographs)
    if seen is None:
        unit = 1.0 if classifier.preprocess is None else classifier.preprocess.spread
        plausible = abs(mean) <= _LARGEST_MEAN * unit and _SPREADS[0] * unit <= deviation <= _SPREADS[1] * unit
        hint = "" if plausible else "; no usual preprocessing gives such values: compare mean and std with those of the training"
        return Finding("preprocessing", "ok" if plausible else "doubtful", values + hint)
    ratio, shift = seen
    compared = f"{values}; the first batch normalisation sees {ratio:.2g} of the spread of its training, shifted by {shift:.2g} of it"
    if 1 / _SPREAD <= ratio <= _SPREAD and shift <= _SHIFT:
        return Finding("preprocessing", "ok", compared)
    return Finding("preprocessing", "doubtful", f"{compared}: compare mean and std with those of the training")


def _first_statistics(classifier: Classifier, photographs: Tensor) -> tuple[float, float] | None:
    """Return the spread and the shift of the first batch normalisation's input.

    Both are medians over its channels, in its running standard deviations; None if there is none, or it was never trained.
    """
    seen: list[tuple[_BatchNorm, Tensor]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not seen and isinstance(module, _BatchNorm) and inputs and isinstance(inputs[0], Tensor):
            seen.append((module, inputs[0].detach()))

    with classifier.frozen() as network:
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and _is_trained(module)]
        handles = [module.register_forward_pre_hook(record) for module in norms]
        try:
            class_logits(network, photographs)
        finally:
            for handle in handles:
                handle.remove()
    if not seen:
        return None
    module, values = seen[0]
    assert module.running_mean is not None  # noqa: S101 - for the type checker: it is trained
    assert module.running_var is not None  # noqa: S101
    channels = values.transpose(0, 1).flatten(1).double()
    trained = (module.running_var.double() + module.eps).sqrt()
    ratio = (channels.std(1) / trained).median()
    shift = ((channels.mean(1) - module.running_mean.double()).abs() / trained).median()
    return float(ratio), float(shift)


def _is_trained(module: _BatchNorm) -> bool:
    """Return whether a batch normalisation has statistics of a training."""
    if module.running_mean is None or module.running_var is None:
        return False
    return bool(module.running_mean.any()) and not bool((module.running_var == 1).all())
