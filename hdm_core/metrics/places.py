"""Shares of a map's energy at the border, in the centre and in the background.

The first two need no region. They tell a bias of place: a map of no image, such as the controls, has them as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric, MetricInput
from hdm_core.metrics.localisation import proportion
from hdm_core.metrics.pixels import share

_BORDER = 10  # per cent of a side, at each end
_CENTRE = 25  # the same, of what is not the centre


def inner_rectangle(height: int, width: int, percent: int, device: torch.device) -> Tensor:
    """Return the pixels that are not in the outer band, (H, W) bool.

    The band is `percent` of a side wide, rounded, at each end of it.
    """
    rows, columns = (torch.arange(side, device=device) for side in (height, width))
    bands = share(height, percent, 100), share(width, percent, 100)
    of_rows, of_columns = ((place >= band) & (place < len(place) - band) for place, band in zip((rows, columns), bands, strict=True))
    return of_rows[:, None] & of_columns


def _energy_within(measured: MetricInput, percent: int) -> Tensor:
    height, width = measured.images.shape[-2:]
    inner = inner_rectangle(height, width, percent, measured.images.device)
    return proportion(measured.maps, inner.expand(len(measured.maps), -1, -1))


BORDER_SHARE = Metric(
    id="border_share",
    title="border",
    definition="share of the map's total in the outer band, a tenth of each side wide",
    lower_is_better=True,
    map_only=True,
    compute=lambda measured: 1 - _energy_within(measured, _BORDER),
    on_request=True,
)
CENTRE_SHARE = Metric(
    id="centre_share",
    title="centre",
    definition="share of the map's total in the inner half of both sides; not a quality: compare it with that of the controls",
    lower_is_better=False,
    map_only=True,
    compute=lambda measured: _energy_within(measured, _CENTRE),
    on_request=True,
)
BACKGROUND_SHARE = Metric(
    id="background_share",
    title="background",
    definition="share of the map's total that lies outside the annotated region",
    lower_is_better=True,
    needs_region=True,
    map_only=True,
    compute=lambda measured: 1 - proportion(measured.maps, measured.map_regions),
    on_request=True,
)
