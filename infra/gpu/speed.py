"""Section: milliseconds of a pass, of the bare network and of the engine."""

from __future__ import annotations

import gc

import torch
from torch import Tensor, nn

from benchmarks.engine import engine_pass, peak_mib
from benchmarks.reference import bare_pass, graphed_pass, input_gradient
from hdm_core import Classifier
from hdm_core.cuda_graphs import captured_graphs
from hdm_core.device import LAYOUT
from hdm_core.masking.dynamic import dm_passes
from hdm_core.methods.presets import DM_PRESETS
from hdm_core.settings import DMSettings
from infra.gpu.facts import pick_test_device
from infra.gpu.networks import build, images_for
from infra.gpu.profiles import kernels
from infra.gpu.session import Facts, Session

_REPEATS = 3
_STEPS = 4  # that are profiled


def check_speed(session: Session, facts: Facts) -> None:
    """Measure each network at each batch size."""
    sizes, device = session.sizes, pick_test_device()
    for name in sizes.networks:
        classifier = build(name, sizes.side, device)

        def measure(batch: int, classifier: Classifier = classifier) -> Facts:
            settings = DM_PRESETS["fast"].model_copy(update={"steps": sizes.batches[batch]})
            return measured(classifier, images_for(classifier, batch), settings, sizes.min_seconds)

        # The batch of the goals comes first, in case time runs out.
        order = sorted(sizes.batches, key=lambda batch: (batch != sizes.batch, batch))
        session.each(facts, order, measure, lambda batch, name=name: f"{name} {batch}")  # type: ignore[misc]
        del classifier
        release(device)


def measured(classifier: Classifier, images: Tensor, settings: DMSettings, min_seconds: float) -> Facts:
    """Return milliseconds per pass, kernels per batch, idle shares, peak memory.

    Args:
        images: (B, C, H, W); B is the batch size.
    """
    device, batch = classifier.device, len(images)
    shown = images.contiguous(memory_format=LAYOUT)
    with classifier.frozen() as network, torch.no_grad():
        targets = torch.cat([network(part) for part in torch.split(images, 16)]).argmax(1)
    found: Facts = {}
    with classifier.folded(images[:1]) as network:
        found["autocast_ms"] = 1e3 * bare_pass(network, shown, "bfloat16", min_seconds)
        found["autocast_kernels"], _ = kernels(input_gradient(network, shown, "bfloat16"), device)
    with classifier.folded(images[:1], "bfloat16") as network:
        found["bfloat16_ms"] = 1e3 * bare_pass(network, shown, "float32", min_seconds)
        found["bfloat16_kernels"], _ = kernels(input_gradient(network, shown, "float32"), device)
        found["graphed_ms"] = 1e3 * graphed_pass(network, shown, min_seconds) if device.type == "cuda" else None
        for way, cuda_graphs in (("engine", False), ("engine_graphed", True)):
            found |= _engine(way, network, images, targets, settings, cuda_graphs)
        found["graphs"] = captured_graphs()
    engine = found["engine_graphed_ms"]
    found["of_autocast"], found["of_bfloat16"] = found["autocast_ms"] / engine, found["bfloat16_ms"] / engine
    found["of_graphed"] = found["graphed_ms"] / engine if found["graphed_ms"] else None
    found["batch"] = batch
    return found


def _engine(way: str, network: nn.Module, images: Tensor, targets: Tensor, settings: DMSettings, cuda_graphs: bool) -> Facts:
    """Time the engine, after a run that captures what is captured."""
    device = images.device

    def run(settings: DMSettings = settings) -> float:
        return engine_pass(network, images, targets, settings, len(images), "bfloat16", cuda_graphs)

    run()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = sorted(run() for _ in range(_REPEATS))[_REPEATS // 2]
    peak = peak_mib(device)
    # Masks of one size and no auxiliary ones, so that a step is one batch; the difference leaves out what is done once.
    few, many = (settings.model_copy(update={"steps": steps, "sizes": settings.sizes[:1], "ratios": (1000,)}) for steps in (1, 1 + _STEPS))
    run(few)
    before, _ = kernels(lambda: run(few), device)
    number, idle = kernels(lambda: run(many), device)
    batches = _STEPS * dm_passes(few, *images.shape[-2:])
    return {f"{way}_ms": 1e3 * seconds, f"{way}_kernels": (number - before) / batches, f"{way}_idle": idle, f"{way}_peak_mib": peak}


def release(device: torch.device) -> None:
    """Return the memory of objects that are no longer used to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
