"""Command `python -m benchmarks evidence`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from benchmarks.evidence.benchmark import Beam, Comparison, Interval, compare_photographs, compare_planted
from benchmarks.pareto.photographs import SPLITS
from hdm_core import EvidenceSettings
from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json
from pipeline.config.load import load_config
from pipeline.errors import InputError


def evidence(
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG...]", help="configurations; dataset and classifier of each are one case")
    ] = None,
    split: Annotated[str, typer.Option(help="half of the photographs: choose or report")] = "choose",
    photographs: Annotated[int, typer.Option(min=2, help="photographs per case, spread over the classifier's confidence")] = 50,
    planted: Annotated[int, typer.Option(min=0, help="planted images of each of the three kinds; 0 for none")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="seed of the planted images and their network")] = 0,
    width: Annotated[int, typer.Option(min=1, help="sets that the beam search grows further, of each size")] = 5,
    overlap: Annotated[int, typer.Option(min=0, help="patches that two sets of one beam search may share")] = 1,
    preset: Annotated[str, typer.Option(help="preset of DM whose masks rank the pixels")] = "faithful",
    as_json: Json = False,
) -> None:
    """Compare pieces of evidence with beam search over patches, and with the truth."""
    if split not in SPLITS:
        raise InputError(f"--split {split}: choose from {', '.join(SPLITS)}")
    try:
        settings = EvidenceSettings(preset=preset)
    except ValueError:
        raise InputError(f"--preset {preset}: DM has no such preset") from None
    beam = Beam(width=width, overlap=overlap)
    configs = [load_config(case) for case in cases or ()]

    def show(line: str) -> None:
        err.print(line, markup=False, highlight=False)

    results = compare_planted(planted, seed, settings, beam, show) if planted else []
    results += [compare_photographs(config, split, photographs, settings, beam, show) for config in configs]
    if as_json:
        print_json({"evidence": [result.as_dict() for result in results]})
        return
    for result in results:
        out.print(f"{result.name}: {result.images} images, and {result.no_contrast} without contrast", markup=False)
        out.print(evidence_table(result))


def evidence_table(result: Comparison) -> Table:
    """Build a table with one row per way: mean ± half of the 95% interval."""
    names = list(next(iter(result.means.values())))
    table = Table("way", *(name.replace("_", " ") for name in names), box=None)
    for way, means in result.means.items():
        table.add_row(way, *(_text(means[name]) for name in names))
    for way, differences in result.differences.items():
        table.add_row(f"find_evidence minus {way}", *(_text(differences[name], sign="+") for name in names))
    return table


def _text(score: Interval, sign: str = "") -> str:
    return f"{score[0]:{sign}.3g} ± {score[1]:.2g}"
