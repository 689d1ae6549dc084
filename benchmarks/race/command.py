"""The command `python -m benchmarks race`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.throughput import save_photographs
from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json
from pipeline.errors import InputError, suggest


def race(
    only: Annotated[str | None, typer.Option(help="cases, separated by commas: grad_cam, grad_cam_measured, rise, dm")] = None,
    images: Annotated[float, typer.Option(min=0, help="multiple of each case's photographs: 0.1 for a tenth")] = 1.0,
    arch: Annotated[
        str, typer.Option(help="torchvision network with random weights, whose `features` end with the last convolution")
    ] = "mobilenet_v2",
    crop: Annotated[int, typer.Option(min=32, help="side of the network's input, in pixels")] = 224,
    as_json: Json = False,
) -> None:
    """Compare runs with the loops that a user would write, in one process each."""
    from benchmarks.race.cases import CASES
    from benchmarks.race.measure import race_case

    names = list(CASES) if only is None else only.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise InputError(f"--only: no case {unknown[0]!r}{suggest(unknown[0], CASES)}; choose from {', '.join(CASES)}")
    results = []
    for name in names:
        count = max(8, round(images * CASES[name].images))
        with tempfile.TemporaryDirectory() as folder:
            paths = save_photographs(Path(folder) / "images", count)
            err.print(f"{name}: {count} photographs ...", markup=False)
            results.append(race_case(name, arch, crop, paths, Path(folder)))
        if results[-1].busy:
            err.print(f"the machine was busy (load {results[-1].load:.1f} per core before the case): read the ratios only", markup=False)
    if as_json:
        print_json({"race": [result.as_dict() for result in results]})
        return
    table = Table(
        "case", "images", "ratio", "goal", "CPU ratio", "images/s", "loop", "start", "loop", "MiB", "loop", "lines", "r", box=None
    )
    for each in results:
        numbers = [each.ratio, each.goal, each.cpu_ratio, each.pipeline.rate, each.loop.rate, each.pipeline.start, each.loop.start]
        memory = [f"{side.peak_mib:.0f}" for side in (each.pipeline, each.loop)]
        similar = "" if each.correlation is None else f"{each.correlation:.3f}"
        table.add_row(each.case, str(each.images), *(f"{number:.3g}" for number in numbers), *memory, str(each.lines), similar)
    out.print(table)
