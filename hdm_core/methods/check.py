"""Check of the methods: does each find what it needs in a network?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from hdm_core.checks.finding import Finding
from hdm_core.classifier import Classifier
from hdm_core.device_errors import is_fatal
from hdm_core.messages import one_line, typed_line
from hdm_core.methods import Method, get_method
from hdm_core.network.hooks import forward_to
from hdm_core.settings import Settings


def check_methods(classifier: Classifier, image: Tensor, settings: Mapping[str, Settings]) -> list[Finding]:
    """Find each method's layer and the gradient to it, and run the method's own check.

    Methods with the same result share a finding.

    Args:
        image: (1, C, H, W).
        settings: method -> its settings.
    """
    methods: dict[Finding, list[str]] = defaultdict(list)
    layers: dict[tuple[object, ...], Finding] = {}  # most methods that look at a layer look at the same one
    for method, each in settings.items():
        entry = get_method(method)
        try:
            key = entry.layer, each, _needs_gradient(entry)
            finding = layers.get(key) or _check_layer(entry, classifier, image, each)
            if finding is not None:
                layers[key] = finding
            if entry.check is not None:
                finding = entry.check(each, classifier, image) or finding
        except Exception as error:  # whatever a network raises in a method's check belongs to this method
            if is_fatal(error):
                raise
            finding = Finding("method", "refused", (one_line if isinstance(error, (TypeError, ValueError)) else typed_line)(error))
        if finding is not None:
            methods[finding].append(method)
    return [Finding(finding.subject, finding.verdict, finding.text, tuple(names)) for finding, names in methods.items()]


def _check_layer(entry: Method, classifier: Classifier, image: Tensor, settings: Settings) -> Finding | None:
    """Run one forward to a method's layer, and a backward if the method makes one."""
    if entry.layer is None:
        return None
    with torch.inference_mode(False), torch.enable_grad(), classifier.frozen() as network:
        output = forward_to(network, entry.layer(network, settings, image), image)
        gradients = output.gradients(output.logits.detach().argmax(1)) if _needs_gradient(entry) else None
    if output.layer is None:
        return None
    module, axes, grid = output.layer.module, output.layer.axes, output.layer.grid
    name = next((name for name, each in classifier.network.named_modules() if each is module), type(module).__name__)
    channels, height, width = output.activations.shape[1:]
    text = f"{name} has {channels} maps of {height} x {width}"
    if gradients is not None and not gradients.any():
        return Finding("layer", "doubtful", f"{text}, and the gradient of the highest logit to it is zero, so that maps are flat")
    if grid is not None:
        others = grid.tokens - height * width
        return Finding("layer", "handled", f"{text}, which are {grid.tokens} tokens, {others} of them no patch of the image")
    if axes == (1, 2, 3):
        return Finding("layer", "ok", text)
    return Finding("layer", "handled", f"{text}, which it returns with the channels along axis {axes[0]}")


def _needs_gradient(entry: Method) -> bool:
    return entry.backward and not entry.gradient_optional
