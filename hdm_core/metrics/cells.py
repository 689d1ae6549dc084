"""Single deletion score of IDSDS: cells of a grid, each deleted alone.

Hesse, Schaub-Meyer, Roth, NeurIPS 2024: Spearman's correlation between the map's sum in a cell and the fall of the target's logit without
it, over a grid of 4 x 4 cells.
"""

from __future__ import annotations

from torch import Tensor

from hdm_core.metrics.base import Metric, MetricInput
from hdm_core.metrics.correlation import spearman
from hdm_core.metrics.removal import grid, scores_without, sums_inside

_SIDE = 4  # cells along each side


def sensitivity_cells(measured: MetricInput) -> Tensor:
    """Return the rank correlation of sums in cells and falls of the logit, (N,).

    The logit of the whole image is the same for all cells, so that the ranks of the falls are those of the negative logits.
    """
    height, width = measured.images.shape[-2:]
    cells = grid(_SIDE, _SIDE, height, width, measured.images.device)
    falls = -scores_without(measured, cells, "logit")
    return measured.unless_flat(spearman(sums_inside(measured.maps, cells), falls[measured.index]))


SENSITIVITY_CELLS = Metric(
    id="sensitivity_cells",
    title="cells",
    definition="rank correlation, over 16 cells of the image, of the map's sum in a cell and the fall of the class's logit without it",
    lower_is_better=False,
    compute=sensitivity_cells,
    forwards_per_image=lambda height, width: _SIDE**2,
    value_range=(-1.0, 1.0),
    on_request=True,
)
