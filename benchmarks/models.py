"""Architectures of torchvision and timm, explained by every method or refused."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, explain
from hdm_core.checks.finding import Finding
from hdm_core.messages import one_line, typed_line
from hdm_core.methods import Method
from hdm_core.methods.check import check_methods
from hdm_core.network.default_layer import default_layer
from hdm_core.network.hooks import activations_and_logits

# The least work with which a method still runs all its parts.
CHEAPEST: Mapping[str, Mapping[str, Any]] = {
    "hdm": {"sizes": (4,), "steps": 1, "stages": 1, "mix_steps": 1},
    "dm": {"sizes": (4,), "steps": 1},
    "integrated_gradients": {"steps": 2},
    "rise": {"masks": 4},
    "mask": {"steps": 1, "circles": 2},
}
_CLASSES = 10  # of timm's networks, some of which have no head otherwise
_SIDES = {"inception_v3": 299}  # of torchvision's networks that were trained on larger images than 224 x 224
_COSTLY = 64  # passes per image, beyond which the pre-flight stands for the run: Score-CAM's and Ablation-CAM's, one per channel


@dataclass(frozen=True)
class ModelResult:
    """Methods that an architecture has.

    Attributes:
        source: torchvision or timm.
        side: of its input, in pixels.
        layer: the layer that the CAMs take, with the size of its maps; empty if they are refused.
        verdicts: method -> ok, checked (the pre-flight alone), refused, error or skipped (for lack of time).
        reasons: method -> the refusal or the error.
    """

    source: str
    arch: str
    side: int
    seconds: float
    layer: str
    verdicts: dict[str, str]
    reasons: dict[str, str]


def bench_models(names: Iterable[str], limit: float, show: Callable[[str], None]) -> list[ModelResult]:
    """Explain one noise image per architecture by every method.

    Args:
        names: SOURCE:ARCH, such as timm:resnet10t.
        limit: seconds per architecture, after which its further methods are skipped.
    """
    results = []
    for name in names:
        results.append(_bench(name, limit))
        counts = {verdict: list(results[-1].verdicts.values()).count(verdict) for verdict in dict.fromkeys(results[-1].verdicts.values())}
        show(f"{name}: {results[-1].seconds:.1f} s, {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}")
    return results


def all_names() -> list[str]:
    """Return the architectures of architectures.yaml, as SOURCE:ARCH."""
    listed = yaml.safe_load((Path(__file__).parent / "architectures.yaml").read_text(encoding="utf-8"))
    return [f"{source}:{arch}" for source, names in listed.items() for arch in names]


def _bench(name: str, limit: float) -> ModelResult:
    start = time.perf_counter()
    source, _, arch = name.partition(":")
    classifier = _build(source, arch)
    side = _SIDES.get(arch) or getattr(classifier.module, "pretrained_cfg", {"input_size": (3, 224, 224)})["input_size"][-1]
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    verdicts, reasons = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of random weights
        for method, entry in METHODS.items():
            if not entry.run.__module__.startswith("hdm_core."):
                continue  # of a plugin
            if time.perf_counter() - start > limit:
                verdicts[method] = "skipped"
                continue
            verdicts[method], reason = _try(classifier, image, entry)
            if reason:
                reasons[method] = reason
        layer = _layer(classifier, image) if "ok" in (verdicts.get("grad_cam"), verdicts.get("eigen_cam")) else ""
    return ModelResult(source, arch, side, round(time.perf_counter() - start, 1), layer, verdicts, reasons)


def _build(source: str, arch: str) -> Classifier:
    """Build an architecture with random weights.

    A head of zeros, with which all logits are zero, becomes random.
    """
    classifier = Classifier.from_timm(arch, classes=_CLASSES) if source == "timm" else Classifier.from_torchvision(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in classifier.module.modules():
            if isinstance(module, nn.Linear) and not module.weight.any():
                nn.init.normal_(module.weight, std=0.02)
    return classifier


def _try(classifier: Classifier, image: Tensor, entry: Method) -> tuple[str, str]:
    """Return the verdict on a method, and the reason of a refusal or an error."""
    changes = CHEAPEST.get(entry.id, {})
    settings = entry.configure(None, **changes)
    try:
        costly = entry.network_passes is not None and entry.cost(settings, classifier, image) > _COSTLY
        if costly:
            (finding,) = check_methods(classifier, image, {entry.id: settings}) or [Finding("method", "ok", "")]
            return ("refused", finding.text) if finding.verdict == "refused" else ("checked", "")
        status = explain(classifier, image, entry.id, **changes).status[0]
    except (ValueError, TypeError) as error:
        return "refused", one_line(error)
    except Exception as error:  # whatever else a network raises is a fault, of it or of ours
        return "error", typed_line(error)
    return ("error", "the map is not finite") if status == "nan" else ("ok", "")


def _layer(classifier: Classifier, image: Tensor) -> str:
    with classifier.frozen() as network:
        layer = default_layer(network, image)
        name = next(name for name, module in network.named_modules() if module is layer.module)
        rows, columns = activations_and_logits(network, layer, image)[0].shape[2:]
    return f"{name}, {rows} x {columns}"
