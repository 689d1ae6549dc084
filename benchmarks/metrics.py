"""Benchmark of the metrics against the bare forwards that they need."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from benchmarks.reference import LAYOUTS, bare_forward, now, quartiles, repeat_to_batch
from hdm_core import Classifier, MetricSettings, evaluate
from hdm_core.device import default_batch, device_name
from hdm_core.metrics.evaluate import metric_forwards


@dataclass(frozen=True)
class MetricsResult:
    """Result for one network and protocol; milliseconds are per forward of one image.

    Attributes:
        forwards: number that the metrics of all images and maps take.
        bare_ms: the folded, frozen network alone, in its fastest layout and the same batch.
        metrics_ms: the whole evaluation, including folding the network, divided by its forwards.
        efficiency: bare / metrics, the median of the pairs; efficiency_range: its quartiles.
    """

    network: str
    device: str
    threads: int
    protocol: str
    layout: str
    batch: int
    images: int
    maps: int
    forwards: int
    pairs: int
    bare_ms: float
    metrics_ms: float
    efficiency: float
    efficiency_range: tuple[float, float]
    torch: str = torch.__version__

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of the result."""
        return asdict(self)


def bench_metrics(classifier: Classifier, images: Tensor, maps: int, settings: MetricSettings, pairs: int) -> MetricsResult:
    """Measure one network on images (B, C, H, W).

    Bare network and metrics are measured in turn, so that other load on the machine slows both.

    Args:
        maps: maps per image, as from this many methods.
        settings: settings of the metrics.
        pairs: measurements of each.
    """
    device = classifier.device
    batch = default_batch(device)
    height, width = images.shape[-2:]
    index = torch.arange(len(images)).repeat_interleave(maps)
    random_maps = torch.rand(len(index), height, width, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(len(images), dtype=torch.int64)
    forwards = len(images) * metric_forwards(height, width, settings, maps)
    with classifier.folded(images[:1]) as network:
        seconds = {layout: min(bare_forward(network, repeat_to_batch(images, batch, layout)) for _ in range(2)) for layout in LAYOUTS}
        layout = min(seconds, key=seconds.__getitem__)
        inputs = repeat_to_batch(images, batch, layout)
        timings = []
        for _ in range(pairs):
            # Half of the bare forwards run before the metrics and half after.
            before, begin = bare_forward(network, inputs), now(device)
            evaluate(classifier, images, random_maps, targets, settings=settings, index=index, batch=batch)
            measured = (now(device) - begin) / forwards
            timings.append(((before + bare_forward(network, inputs)) / 2, measured))
    bare, ours = (statistics.median(column) for column in zip(*timings, strict=True))
    low, middle, high = quartiles([bare / ours for bare, ours in timings])
    return MetricsResult(
        network=classifier.name,
        device=device_name(device),
        threads=torch.get_num_threads(),
        protocol=settings.protocol,
        layout=layout,
        batch=batch,
        images=len(images),
        maps=maps,
        forwards=forwards,
        pairs=pairs,
        bare_ms=bare * 1e3,
        metrics_ms=ours * 1e3,
        efficiency=middle,
        efficiency_range=(low, high),
    )
