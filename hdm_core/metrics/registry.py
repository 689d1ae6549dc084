"""The registry of metrics, in the order of tables and pages."""

from __future__ import annotations

from collections.abc import Sequence

from hdm_core.metrics.base import Metric
from hdm_core.metrics.cells import SENSITIVITY_CELLS
from hdm_core.metrics.complexity import COMPLEXITY
from hdm_core.metrics.confidence import AVERAGE_DROP_70, AVERAGE_DROP_80, INCREASE_70, INCREASE_80
from hdm_core.metrics.curves import DELETION_AUC, INSERTION_AUC
from hdm_core.metrics.infidelity import INFIDELITY
from hdm_core.metrics.least_first import LEAST_FIRST_AUC, SRG
from hdm_core.metrics.localisation import PROPORTION
from hdm_core.metrics.overlap import IOU_BEST, IOU_FIXED
from hdm_core.metrics.pixel_ranking import AVERAGE_PRECISION, RANK_ACCURACY, TOP15_ENERGY
from hdm_core.metrics.places import BACKGROUND_SHARE, BORDER_SHARE, CENTRE_SHARE
from hdm_core.metrics.pointing import POINTING_GAME
from hdm_core.metrics.sensitivity_n import SENSITIVITY_N
from hdm_core.metrics.soft import AVERAGE_DROP_SOFT, AVERAGE_GAIN_SOFT, INCREASE_SOFT
from hdm_core.metrics.sparseness import SPARSENESS
from hdm_core.registry import Registry
from hdm_core.settings import did_you_mean

# Installed packages add theirs by the entry points `hdm.metrics`.
METRICS: Registry[Metric] = Registry(
    "hdm.metrics",
    Metric,
    (
        AVERAGE_DROP_80,
        AVERAGE_DROP_70,
        INCREASE_80,
        INCREASE_70,
        DELETION_AUC,
        INSERTION_AUC,
        PROPORTION,
        # On request: of the curves, with passes of their own, of the map alone, of the map and the region.
        LEAST_FIRST_AUC,
        SRG,
        AVERAGE_DROP_SOFT,
        AVERAGE_GAIN_SOFT,
        INCREASE_SOFT,
        SENSITIVITY_CELLS,
        SENSITIVITY_N,
        INFIDELITY,
        SPARSENESS,
        COMPLEXITY,
        BORDER_SHARE,
        CENTRE_SHARE,
        POINTING_GAME,
        AVERAGE_PRECISION,
        RANK_ACCURACY,
        TOP15_ENERGY,
        IOU_BEST,
        IOU_FIXED,
        BACKGROUND_SHARE,
    ),
)


# Names that stand for several metrics.
GROUPS = ("paper", "all")


def metric_title(name: str) -> str:
    """Return a metric's title; its id if it is not installed here."""
    return METRICS[name].title if name in METRICS else name


def metrics_on_request() -> list[str]:
    """Return the ids of the metrics that are measured only where they are named."""
    return [name for name, metric in METRICS.items() if metric.on_request]


def chosen_metrics(names: Sequence[str] | None) -> list[str]:
    """Return the ids that names stand for, in the registry's order.

    Args:
        names: ids, `paper` for the metrics that are not on request, `all` for every metric; None means `paper`.

    Raises:
        ValueError: for a name that is none of these; the message has the nearest one.
    """
    groups = {"paper": [name for name, metric in METRICS.items() if not metric.on_request], "all": list(METRICS)}
    chosen: set[str] = set()
    for name in ("paper",) if names is None else names:
        if name not in groups and name not in METRICS:
            known = [*groups, *METRICS]
            raise ValueError(f"unknown metric {name!r}{did_you_mean(name, known) or '; known are ' + ', '.join(known)}")
        chosen.update(groups.get(name, [name]))
    return METRICS.sort(chosen)
