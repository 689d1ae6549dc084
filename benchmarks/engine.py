"""Benchmark of the mask optimiser: against the bare network and sequential masks."""

from __future__ import annotations

import platform
import resource
import statistics
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from benchmarks.reference import LAYOUTS, bare_pass, now, quartiles, repeat_to_batch
from benchmarks.sequential import sequential_dm
from hdm_core import Classifier
from hdm_core.device import Precision, batch_candidates, default_precision
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.dynamic import dynamic_mask
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.settings import DMSettings


@dataclass(frozen=True)
class EngineResult:
    """Result for one network; milliseconds are per pass: one forward and one backward.

    Attributes:
        bare_ms: the folded, frozen network alone, in its fastest layout and batch.
        engine_ms: the whole mask optimisation, divided by its passes.
        efficiency: bare / engine, the median of the pairs; efficiency_range: its quartiles.
        sequential_ms: the unfolded network, one mask after another.
        speedup: sequential / engine.
        correlation, difference: Pearson's correlation and largest absolute difference of the maps of both.
        peak_mib: peak memory in MiB, of the GPU if there is one, else of the process.
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
        """Return the JSON object of the result."""
        return asdict(self)


def bench_engine(classifier: Classifier, images: Tensor, settings: DMSettings, pairs: int) -> EngineResult:
    """Measure one network on images (B, C, H, W).

    Bare network and engine are measured in turn, so that other load on the machine slows both.

    Args:
        settings: settings of the optimised masks.
        pairs: measurements of each.
    """
    device, precision = classifier.device, default_precision(classifier.device)
    with classifier.frozen() as network, torch.no_grad():
        targets = network(images).argmax(1)
    with classifier.folded(images[:1], precision) as network:
        layout, batch = _fastest(network, images, precision)
        inputs = repeat_to_batch(images, batch, layout)

        def engine() -> float:
            return engine_pass(network, images, targets, settings, batch, precision)

        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)  # not of larger batches, which were tried for their speed
        engine()
        timings = [(bare_pass(network, inputs, precision), engine()) for _ in range(pairs)]
    with classifier.folded(images[:1]) as network:
        # Without the random noise background: the sequential version has none.
        deterministic = settings.model_copy(update={"noise": 0.0})
        ours = dynamic_mask(_loss(network, images[:1], targets[:1], deterministic, batch, PassCounter(), "float32"), deterministic)[0, 0]
    with classifier.frozen() as network:
        passes, begin = PassCounter(), now(device)
        theirs = sequential_dm(network, images[:1], int(targets[0]), deterministic, passes)
        sequential = (now(device) - begin) / passes.total
    bare, engine_seconds = (statistics.median(column) for column in zip(*timings, strict=True))
    ratios = [bare / engine for bare, engine in timings]
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
        engine_ms=engine_seconds * 1e3,
        efficiency=middle,
        efficiency_range=(low, high),
        sequential_ms=sequential * 1e3,
        speedup=sequential / engine_seconds,
        correlation=float(torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]),
        difference=float((ours - theirs).abs().max()),
        peak_mib=peak_mib(device),
    )


def engine_pass(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    settings: DMSettings,
    batch: int,
    precision: Precision,
    cuda_graphs: bool = True,
) -> float:
    """Return the seconds per pass of the mask optimiser, with all of its own work.

    Args:
        network: as `Classifier.folded` yields it for this precision.
        images: (B, C, H, W).
        targets: (B,).
    """
    passes, begin = PassCounter(), now(images.device)
    dynamic_mask(_loss(network, images, targets, settings, batch, passes, precision, cuda_graphs), settings)
    return (now(images.device) - begin) / passes.total


def _loss(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    settings: DMSettings,
    batch: int,
    passes: PassCounter,
    precision: Precision,
    cuda_graphs: bool = True,
) -> ConsistencyLoss:
    baseline = torch.zeros(1, images.shape[1], 1, 1, device=images.device)
    return ConsistencyLoss(
        network,
        images,
        targets,
        baseline,
        "logit",
        batch,
        passes,
        settings.relative,
        settings.noise,
        precision=precision,
        cuda_graphs=cuda_graphs,
    )


def _fastest(network: nn.Module, images: Tensor, precision: Precision) -> tuple[str, int]:
    """Return the layout and batch size in which a bare pass is fastest."""
    batches = batch_candidates(images.device)
    if len(batches) == 1:
        batches = [batches[0] // 2, batches[0], batches[0] * 2]
    seconds = {
        (layout, batch): min(bare_pass(network, repeat_to_batch(images, batch, layout), precision) for _ in range(3))
        for layout in LAYOUTS
        for batch in batches
    }
    return min(seconds, key=seconds.__getitem__)


def peak_mib(device: torch.device) -> float:
    """Return the peak memory in MiB: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux
