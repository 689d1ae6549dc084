"""Command line of the benchmarks: `python -m benchmarks NAME --json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmarks.scale import plan, pool, store
from pipeline.cli.console import err, out
from pipeline.cli.options import Json
from pipeline.errors import InputError

if TYPE_CHECKING:  # Ray takes seconds to import: only the command that needs it pays
    from torch import Tensor

    from benchmarks.pareto.benchmark import Point
    from hdm_core import Classifier

bench = typer.Typer(help="Measure this project against the limit and against its own baselines.", no_args_is_help=True)
bench.command()(pool)
bench.command()(plan)
bench.command()(store)

Arch = Annotated[list[str] | None, typer.Option(help="torchvision networks; MobileNetV2 if none is named")]
Weights = Annotated[str | None, typer.Option(help="torchvision weights of the networks; random ones if not given")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; as many as there are cores if not given")]
Crop = Annotated[int, typer.Option(min=32, help="side of the network's input")]


@bench.command()
def engine(
    arch: Annotated[list[str] | None, typer.Option(help="torchvision networks; MobileNetV2 and ResNet-50 if none is named")] = None,
    weights: Weights = None,
    images: Annotated[int, typer.Option(min=1, help="pictures whose masks are trained together")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="how often bare network and engine are measured in turn")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps a mask")] = 10,
    threads: Threads = None,
    crop: Crop = 224,
    as_json: Json = False,
) -> None:
    """The mask optimiser against the bare network, and against one mask after another."""
    from pipeline.execution.cluster import reexec_with_worker_env

    reexec_with_worker_env()
    from benchmarks.engine import bench_engine
    from hdm_core.methods.presets import DM_PRESETS

    settings = DM_PRESETS["fast"].model_copy(update={"steps": steps})
    shown = _pictures(images, crop, threads)
    results = []
    for name in arch or ["mobilenet_v2", "resnet50"]:
        err.print(f"{name}: {pairs} pairs ...", markup=False)
        results.append(bench_engine(_classifier(name, weights), shown, settings, pairs).as_dict())
    _show("engine", results, as_json)


@bench.command()
def metrics(
    arch: Arch = None,
    weights: Weights = None,
    images: Annotated[int, typer.Option(min=1, help="pictures that are measured together")] = 2,
    maps: Annotated[int, typer.Option(min=1, help="maps of every picture, as of so many methods")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="how often bare network and metrics are measured in turn")] = 5,
    threads: Threads = None,
    crop: Crop = 224,
    as_json: Json = False,
) -> None:
    """The metrics, by either protocol, against the bare forward passes that they need."""
    from pipeline.execution.cluster import reexec_with_worker_env

    reexec_with_worker_env()
    from benchmarks.metrics import bench_metrics
    from hdm_core import MetricSettings

    shown = _pictures(images, crop, threads)
    results = []
    for name in arch or ["mobilenet_v2"]:
        classifier = _classifier(name, weights)
        for protocol in ("paper", "rise"):
            err.print(f"{name}, {protocol}: {pairs} pairs ...", markup=False)
            results.append(bench_metrics(classifier, shown, maps, MetricSettings(protocol=protocol), pairs).as_dict())
    _show("metrics", results, as_json)


@bench.command()
def methods(
    weights: Weights = None,
    images: Annotated[int, typer.Option(min=1, help="pictures that are explained together; costly methods take one")] = 4,
    pairs: Annotated[int, typer.Option(min=1, help="how often library and method are measured in turn")] = 3,
    only: Annotated[str | None, typer.Option(help="methods, by commas; all that a library has if not given")] = None,
    threads: Threads = None,
    crop: Crop = 224,
    as_json: Json = False,
) -> None:
    """The methods on MobileNetV2 against the fastest library that has them; RISE, which none has, against a plain loop."""
    from pipeline.execution.cluster import reexec_with_worker_env

    reexec_with_worker_env()
    from benchmarks.methods import bench_method, comparable

    chosen = comparable(None if only is None else only.split(","))
    shown, classifier = _pictures(images, crop, threads), _classifier("mobilenet_v2", weights)
    results = []
    for name in chosen:
        err.print(f"{name}: {pairs} pairs ...", markup=False)
        results.append(bench_method(classifier, shown, name, pairs))
    if as_json:
        sys.stdout.write(json.dumps({"methods": [result.as_dict() for result in results]}) + "\n")
        return
    table = Table("method", "library", "images", "settings", "ours, ms", "library, ms", "ratio", box=None)
    for result in results:
        changed = ", ".join(f"{key} {value}" for key, value in result.settings.items())
        cells = [result.method, result.library, str(result.images), changed, f"{result.ours_ms:.1f}", f"{result.library_ms:.1f}"]
        table.add_row(*cells, f"{result.ratio:.2f} ({_text(result.ratio_range)})")
    out.print(table)


@bench.command()
def pareto(
    cases: Annotated[list[str], typer.Argument(metavar="CONFIG...", help="configurations whose dataset and classifier are a case each")],
    output: Annotated[str, typer.Option(help="the folder of the pictures")] = ".",
    split: Annotated[str, typer.Option(help="the half of the photographs: choose or report")] = "report",
    photographs: Annotated[int, typer.Option(min=2, help="how many, from sure to unsure ones")] = 12,
    only: Annotated[str | None, typer.Option(help="candidates, by commas; all that are not costly if not given")] = None,
    as_json: Json = False,
) -> None:
    """Candidate settings on the same photographs: what more passes buy."""
    from pathlib import Path

    from benchmarks.pareto.benchmark import candidates, compare, run_case
    from benchmarks.pareto.figure import pareto_figure
    from benchmarks.pareto.maps import maps_figure
    from benchmarks.pareto.photographs import SPLITS
    from pipeline.config.load import load_config
    from pipeline.monitoring.progress import ProgressCallback, throttle

    if split not in SPLITS:
        raise InputError(f"--split {split}: choose from {', '.join(SPLITS)}")
    configs = [load_config(case) for case in cases]
    if len({config.name for config in configs}) < len(configs):
        raise InputError("two cases have the same name: give each configuration its own")
    chosen = candidates(None if only is None else only.split(","))

    def show(name: str) -> ProgressCallback:
        return throttle(30, lambda progress: err.print(f"{name}: {progress.line()}", markup=False, highlight=False))

    points, pictures = [], {}
    for config in configs:
        stores = run_case(config, chosen, split, photographs, show)
        points += compare(config.name, stores)
        pictures[f"{config.name}-{split}-maps.png"] = maps_figure(stores)
    pictures[f"pareto-{split}.png"] = pareto_figure(points)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        (folder / name).write_bytes(picture)
    if as_json:
        facts = {"split": split, "points": [asdict(point) for point in points], "pictures": [str(folder / name) for name in pictures]}
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        out.print(_points_table(points))
        out.print(*(str(folder / name) for name in pictures), sep="\n", markup=False, soft_wrap=True)


@bench.command()
def truth(
    images: Annotated[int, typer.Option(min=2, help="pictures of each of the three kinds")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="of the pictures and the network")] = 0,
    only: Annotated[str | None, typer.Option(help="methods, by commas; all if not given")] = None,
    figure: Annotated[str | None, typer.Option(help="a picture of some maps, .png or .jpg")] = None,
    as_json: Json = False,
) -> None:
    """Maps against evidence that is known: pictures whose class small planted patterns decide."""
    from pathlib import Path

    from benchmarks.planted.benchmark import bench_truth
    from benchmarks.planted.figure import SUFFIXES, truth_figure, truth_lines, truth_table

    if figure is not None and Path(figure).suffix not in SUFFIXES:
        raise InputError(f"--figure {figure}: choose a name that ends with {' or '.join(SUFFIXES)}")
    result, made, maps = bench_truth(images, seed, only and only.split(","), lambda line: err.print(line, markup=False))
    if figure is not None:
        Path(figure).parent.mkdir(parents=True, exist_ok=True)
        Path(figure).write_bytes(truth_figure(made, maps, Path(figure).suffix))
    if as_json:
        sys.stdout.write(json.dumps({"truth": result.as_dict()}) + "\n")
    else:
        out.print(truth_table(result))
        out.print(*truth_lines(result), sep="\n", markup=False, highlight=False)


def _points_table(points: Sequence[Point]) -> Table:
    """Means, and how far from the reference photograph by photograph."""
    from benchmarks.pareto.benchmark import PARETO_METRICS
    from pipeline.tables.aggregate import TITLES

    table = Table("case", "candidate", "n", "passes", *(TITLES[metric] for metric in PARETO_METRICS), box=None)
    for point in points:
        cells = [f"{point.means[name]:.3f} ({point.gains[name][0]:+.3f} ± {point.gains[name][1]:.3f})" for name in PARETO_METRICS]
        table.add_row(point.case, point.candidate, str(point.photographs), f"{point.passes:,.0f}", *cells)
    return table


def _pictures(images: int, crop: int, threads: int | None) -> Tensor:
    """Random pictures (images, 3, crop, crop), on which neither speed nor agreement depends, where the network will be."""
    import torch

    from hdm_core.device import pick_device

    if threads is not None:
        torch.set_num_threads(threads)
    return torch.randn(images, 3, crop, crop, generator=torch.Generator().manual_seed(0)).to(pick_device(1))


def _classifier(arch: str, weights: str | None) -> Classifier:
    from hdm_core.device import pick_device
    from pipeline.classifiers.load import load_classifier
    from pipeline.config.schema import ClassifierConfig

    return load_classifier(ClassifierConfig(arch=arch, weights=weights), seed=0).to(pick_device(1))


def _show(what: str, results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({what: results}) + "\n")
        return
    table = Table("", *(str(result["network"]) for result in results), box=None)
    for key in list(results[0])[1:]:
        table.add_row(key, *(_text(result[key]) for result in results))
    out.print(table)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(_text, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run one benchmark; bad input becomes one line and exit code 2."""
    try:
        bench(prog_name="python -m benchmarks")
    except InputError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        sys.exit(2)
