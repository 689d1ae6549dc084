"""Option `--shares` of `hdm plan`: which share of a GPU each worker should get."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from pipeline.cli.console import err, out, print_facts, print_json
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.plan import Plan


def print_shares(plan: Plan, shares: list[float], as_json: bool) -> None:
    """Measure shares of a GPU with a batch of the run, and print their speeds.

    Raises:
        InputError: if none of them can be measured.
    """
    from pipeline.execution.shares import measure_shares, recommend
    from pipeline.monitoring.progress import progress_bar

    with progress_bar(err) as on_progress:
        speeds = measure_shares(plan, shares, on_progress)
    best = recommend(speeds)
    if as_json:
        print_json({**plan.as_dict(), "shares": [asdict(speed) for speed in speeds], "recommended_share": best and best.share})
    else:
        table = Table("share of a GPU", "workers", "images/s", "", box=None)
        for speed in speeds:
            rate = "-" if speed.images_per_second is None else f"{speed.images_per_second:.3g}"
            table.add_row(f"{speed.share:g}", str(speed.workers), rate, speed.error or "")
        out.print(table)
    if best is None:
        raise InputError(f"no share could be measured: {speeds[0].error}")
    if not as_json:
        print_facts({"recommended": f"compute.gpus_per_worker={best.share:g}, the fewest workers within 5% of the best"})
