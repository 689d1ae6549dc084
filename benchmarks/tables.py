"""Tables that the benchmarks print for people, without --json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:  # Ray and torch take seconds to import
    from benchmarks.memory import MemoryResult
    from benchmarks.methods import MethodResult
    from benchmarks.pareto.benchmark import Point
    from benchmarks.planted.hierarchy import HierarchyResult, PieceScore


def networks_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Build a table with one column per result and one row per fact."""
    table = Table("", *(str(result["network"]) for result in results), box=None)
    for key in list(results[0])[1:]:
        table.add_row(key, *(_text(result[key]) for result in results))
    return table


def memory_table(result: MemoryResult) -> Table:
    """Build a table with one row per measurement."""
    table = Table("calls", "resident, MiB", "traced, MiB", box=None)
    for each in result.measurements:
        table.add_row(f"{each.calls:,}", f"{each.resident_mib:.1f}", f"{each.traced_mib:.2f}")
    return table


def methods_table(results: Sequence[MethodResult]) -> Table:
    """Build a table with one row per method."""
    table = Table("method", "library", "images", "settings", "ours, ms", "library, ms", "ratio", box=None)
    for result in results:
        settings = ", ".join(f"{key} {value}" for key, value in result.settings.items())
        cells = [result.method, result.library, str(result.images), settings, f"{result.ours_ms:.1f}", f"{result.library_ms:.1f}"]
        table.add_row(*cells, f"{result.ratio:.2f} ({_text(result.ratio_range)})")
    return table


def points_table(points: Sequence[Point]) -> Table:
    """Build a table of means and of the mean paired differences from the reference."""
    from benchmarks.pareto.benchmark import PARETO_METRICS
    from pipeline.tables.aggregate import TITLES

    table = Table("case", "candidate", "n", "passes", *(TITLES[metric] for metric in PARETO_METRICS), box=None)
    for point in points:
        cells = [f"{point.means[name]:.3f} ({point.gains[name][0]:+.3f} ± {point.gains[name][1]:.3f})" for name in PARETO_METRICS]
        table.add_row(point.case, point.candidate, str(point.photographs), f"{point.passes:,.0f}", *cells)
    return table


def hierarchy_tables(result: HierarchyResult) -> list[tuple[str, Table]]:
    """Build a table per kind of images: means, and gains over one stage."""
    tables = []
    for kind in dict.fromkeys(row.kind for row in result.rows):
        rows = [row for row in result.rows if row.kind == kind]
        head = [score.replace("_", " ") for score in rows[0].means]
        table = Table("candidate", "passes", *head, "AP - one stage's", "AP - faithful's", "ahead", "flat", box=None)
        for row in rows:
            table.add_row(*_hierarchy_cells(row, len(result.networks)))
        facts = f"{len(result.networks)} networks ({result.world}), {rows[0].images} images, {result.seconds:.0f} s on {result.device}"
        tables.append((f"{kind}: {facts}", table))
    return tables


def _hierarchy_cells(row: PieceScore, networks: int) -> list[str]:
    gains = [
        "-" if gain is None else f"{gain['average_precision'][0]:+.3f} ± {gain['average_precision'][1]:.3f}"
        for gain in (row.to_one_stage, row.to_reference)
    ]
    ahead = "-" if row.ahead is None else f"{row.ahead['average_precision']} of {networks}"
    return [row.candidate, f"{row.passes:,}", *(f"{mean:.3f}" for mean, _ in row.means.values()), *gains, ahead, str(row.flat)]


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(_text, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)
