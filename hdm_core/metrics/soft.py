"""Average drop, average gain and increase of the softly masked image.

The image is M * X + (1 - M) * baseline, with the whole map M instead of its most salient pixels. With the baseline `mean`, which is 0 after
normalisation, it is M * X, as torch-cam masks it. Average gain: Zhang et al., Opti-CAM, CVIU 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric, MetricInput
from hdm_core.metrics.confidence import average_drop, increase
from hdm_core.metrics.forward import even_parts


def average_gain(clean: Tensor, masked: Tensor) -> Tensor:
    """Return max(0, O - Y) / (1 - Y), any shape -> the same; NaN where Y is 1.

    Y is the probability for the whole image, O that for the masked one.
    """
    return torch.where(clean < 1, (masked - clean).clamp(min=0) / (1 - clean), torch.nan)


def soft_probability(measured: MetricInput) -> Tensor:
    """Return the targets' probability for the softly masked images, (N,).

    It is NaN for a constant map, which masks no pixel more than another.
    """
    baseline, images, scores = measured.baseline(), measured.images, []
    for part in even_parts(len(measured.index), measured.batch):
        image = measured.index[part]
        background = baseline if len(baseline) == 1 else baseline[image]
        masked = torch.lerp(background, images[image], measured.maps[part, None].to(images.dtype))
        scores.append(measured.probabilities(masked, image))
    return measured.unless_flat(torch.cat(scores))


def _soft(name: str, title: str, definition: str, score: Callable[[Tensor, Tensor], Tensor], lower_is_better: bool = False) -> Metric:
    return Metric(
        id=name,
        title=title,
        definition=definition,
        lower_is_better=lower_is_better,
        compute=lambda measured: score(measured.clean, soft_probability(measured)),
        # Each has a pass of its own: three passes beside the 200 of the curves are not worth a cache.
        forwards=lambda height, width: 1,
        on_request=True,
    )


AVERAGE_DROP_SOFT = _soft(
    "average_drop_soft",
    "drop, soft",
    "share of the class's probability that is lost when the image is multiplied by the map",
    average_drop,
    lower_is_better=True,
)
AVERAGE_GAIN_SOFT = _soft(
    "average_gain_soft",
    "gain, soft",
    "share of what the class's probability lacks to 1 that is gained when the image is multiplied by the map",
    average_gain,
)
INCREASE_SOFT = _soft(
    "increase_soft",
    "increase, soft",
    "share of the images on which the class's probability rises when the image is multiplied by the map",
    increase,
)
