"""Commands `truth` and `planted`: maps against evidence that is known."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json
from pipeline.errors import InputError

Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; one per core by default")]


def truth(
    images: Annotated[int, typer.Option(min=2, help="images of each of the three kinds")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="seed of the images and the network")] = 0,
    only: Annotated[str | None, typer.Option(help="methods, separated by commas; all by default")] = None,
    figure: Annotated[str | None, typer.Option(help="write a figure of some maps, .png or .jpg")] = None,
    as_json: Json = False,
) -> None:
    """Score maps on synthetic images whose class small planted patterns decide."""
    from pathlib import Path

    from benchmarks.planted.benchmark import bench_truth
    from benchmarks.planted.figure import SUFFIXES, truth_figure, truth_lines, truth_table

    if figure is not None and Path(figure).suffix not in SUFFIXES:
        raise InputError(f"--figure {figure}: choose a name that ends with {' or '.join(SUFFIXES)}")
    result, data, maps = bench_truth(images, seed, only and only.split(","), lambda line: err.print(line, markup=False))
    if figure is not None:
        Path(figure).parent.mkdir(parents=True, exist_ok=True)
        Path(figure).write_bytes(truth_figure(data, maps, Path(figure).suffix))
    if as_json:
        print_json({"truth": result.as_dict()})
    else:
        out.print(truth_table(result))
        out.print(*truth_lines(result), sep="\n", markup=False, highlight=False)


def planted(
    hard: Annotated[
        bool,
        typer.Option("--hard", help="three to six unequal pieces on photographs instead of the images of `truth`"),
    ] = False,
    images: Annotated[int, typer.Option(min=2, help="images of each kind, redundant and joint, per network")] = 30,
    seeds: Annotated[int, typer.Option(min=1, help="networks per architecture; their seeds are 0, 1, ...")] = 3,
    architectures: Annotated[
        str | None, typer.Option(help="of the networks for --hard, separated by commas: plain, residual; both by default")
    ] = None,
    only: Annotated[str | None, typer.Option(help="candidates, separated by commas; all by default")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="masked images per forward pass; the device's default if left out")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare one stage of HDM with several, at equal passes, on planted evidence."""
    import torch

    from benchmarks.planted.command import run_planted
    from benchmarks.tables import hierarchy_tables

    if threads is not None:
        torch.set_num_threads(threads)
    result = run_planted(
        hard,
        images,
        seeds,
        architectures and architectures.split(","),
        only and only.split(","),
        batch=batch,
        show=lambda line: err.print(line, markup=False, highlight=False),
    )
    if as_json:
        print_json({"planted": result.as_dict()})
    else:
        for title, table in hierarchy_tables(result):
            out.print(title, markup=False, highlight=False)
            out.print(table)
