"""How close the mask optimiser is to the bare network, and how far from one mask after another."""

from __future__ import annotations

import platform
import resource
import statistics
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from benchmarks.reference import LAYOUTS, bare_pass, repeat_to_batch, now, quartiles
from benchmarks.sequential import sequential_dm
from hdm_core import Classifier
from hdm_core.device import Precision, batch_candidates, default_precision
from hdm_core.masking.consistency import ConsistencyLoss, PassCounter
from hdm_core.masking.dynamic import dynamic_mask
from hdm_core.settings import DMSettings


@dataclass(frozen=True)
class EngineResult:
    """Milliseconds are of one forward and backward pass of one masked image.

    Attributes:
        bare_ms: of the folded, frozen network alone, in its best layout and batch.
        engine_ms: of everything that training masks takes.
        efficiency: bare / engine, the median of the pairs; efficiency_range its quartiles.
        sequential_ms: of the network as it came, one mask after another.
        speedup: sequential / engine.
        correlation, difference: of the maps of both, Pearson's and the largest.
        peak_mib: of GPU memory where there is one, else of the process.
    """

    network: str
    device: str
    precision: str
    threads: int
    layout: str
    batch: int
    images: int
    pairs: int
    bare_ms: float
    engine_ms: float
    efficiency: float
    efficiency_range: tuple[float, float]
    sequential_ms: float
    speedup: float
    correlation: float
    difference: float
    peak_mib: float
    torch: str = torch.__version__

    def as_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return asdict(self)


def bench_engine(classifier: Classifier, images: Tensor, settings: DMSettings, pairs: int) -> EngineResult:
    """Measures one network on images (B, C, H, W): bare and engine in turn, so that what slows the machine down slows both.

    Args:
        settings: of the masks that are trained.
        pairs: how often each is measured.
    """
    device, precision = classifier.device, default_precision(classifier.device)
    with classifier.frozen() as network, torch.no_grad():
        targets = network(images).argmax(1)
    with classifier.folded(images[:1]) as network:
        layout, batch = _fastest(network, images, precision)
        shown = repeat_to_batch(images, batch, layout)

        def engine() -> float:
            passes, begin = PassCounter(), now(device)
            dynamic_mask(_loss(network, images, targets, settings, batch, passes, precision), settings)
            return (now(device) - begin) / passes.total

        engine()
        taken = [(bare_pass(network, shown, precision), engine()) for _ in range(pairs)]
        # Without what is drawn at random: the sequential version draws nothing.
        plain = settings.model_copy(update={"noise": 0.0})
        ours = dynamic_mask(_loss(network, images[:1], targets[:1], plain, batch, PassCounter(), "float32"), plain)[0, 0]
    with classifier.frozen() as network:
        passes, begin = PassCounter(), now(device)
        theirs = sequential_dm(network, images[:1], int(targets[0]), plain, passes)
        sequential = (now(device) - begin) / passes.total
    bare, trained = (statistics.median(column) for column in zip(*taken, strict=True))
    ratios = [bare / engine for bare, engine in taken]
    low, middle, high = quartiles(ratios)
    return EngineResult(
        network=classifier.name,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        precision=precision,
        threads=torch.get_num_threads(),
        layout=layout,
        batch=batch,
        images=len(images),
        pairs=pairs,
        bare_ms=bare * 1e3,
        engine_ms=trained * 1e3,
        efficiency=middle,
        efficiency_range=(low, high),
        sequential_ms=sequential * 1e3,
        speedup=sequential / trained,
        correlation=float(torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]),
        difference=float((ours - theirs).abs().max()),
        peak_mib=_peak(device),
    )


def _loss(
    network: nn.Module, images: Tensor, targets: Tensor, settings: DMSettings, batch: int, passes: PassCounter, precision: Precision
) -> ConsistencyLoss:
    baseline = torch.zeros(1, images.shape[1], 1, 1, device=images.device)
    return ConsistencyLoss(
        network, images, targets, baseline, "logit", batch, passes, settings.relative, settings.noise, precision=precision
    )


def _fastest(network: nn.Module, images: Tensor, precision: Precision) -> tuple[str, int]:
    """The layout and batch in which a bare pass is fastest."""
    batches = batch_candidates(images.device)
    if len(batches) == 1:
        batches = [batches[0] // 2, batches[0], batches[0] * 2]
    seconds = {
        (layout, batch): min(bare_pass(network, repeat_to_batch(images, batch, layout), precision) for _ in range(3))
        for layout in LAYOUTS
        for batch in batches
    }
    return min(seconds, key=seconds.__getitem__)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # kibibytes on Linux
