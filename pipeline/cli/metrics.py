"""Command `hdm metrics`."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from pipeline.cli.console import out, print_json
from pipeline.cli.options import Json

_SIDE = 224  # of the images for which passes are listed


def metrics(as_json: Json = False) -> None:
    """List the metrics, what they need and cost.

    Those on request are measured where metrics.names has them, or all.
    """
    from hdm_core import METRICS

    entries = [
        {
            "id": metric.id,
            "title": metric.title,
            "better": "lower" if metric.lower_is_better else "higher",
            "on_request": metric.on_request,
            "needs_region": metric.needs_region,
            "map_only": metric.map_only,
            "protocols": list(metric.protocols),
            "forwards_per_map": metric.forwards(_SIDE, _SIDE),
            "forwards_per_image": metric.forwards_per_image(_SIDE, _SIDE),
            "definition": metric.definition,
        }
        for metric in METRICS.values()
    ]
    if as_json:
        print_json({"metrics": entries})
        return
    table = Table("id", "measured", "needs", "own passes", "definition", box=None)
    for metric in METRICS.values():
        needs = "map" if metric.map_only else "network"
        table.add_row(
            f"{metric.id} {metric.arrow}",
            "on request" if metric.on_request else "by default",
            f"{needs}, region" if metric.needs_region else needs,
            _passes(metric.forwards(_SIDE, _SIDE), metric.forwards_per_image(_SIDE, _SIDE)),
            Text(metric.definition),
        )
    out.print(table)


def _passes(per_map: int, per_image: int) -> str:
    parts = [f"{count} per {unit}" for count, unit in ((per_map, "map"), (per_image, "image")) if count]
    return ", ".join(parts) or "-"
