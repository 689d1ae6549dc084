"""Command line of the benchmarks: `python -m benchmarks NAME --json`.

With --json the last line on standard output is one JSON object; progress goes to standard error.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.architectures import models
from benchmarks.audit.command import audit
from benchmarks.evidence.command import evidence
from benchmarks.planted.options import Threads, planted, truth
from benchmarks.race.command import race
from benchmarks.scale import plan, pool, simulate, store, tables, view
from benchmarks.tables import memory_table, methods_table, networks_table, points_table
from benchmarks.throughput import throughput
from benchmarks.torchcam import torchcam
from pipeline.cli.console import accept_any_encoding, err, out, print_json
from pipeline.cli.options import Json
from pipeline.errors import InputError

if TYPE_CHECKING:  # Ray takes seconds to import: only the commands that need it import it
    from torch import Tensor

    from hdm_core import Classifier

bench = typer.Typer(
    help="Measure speed and quality against the bare network, other libraries and known evidence.",
    no_args_is_help=True,
    add_completion=False,
)
bench.command()(pool)
bench.command()(plan)
bench.command()(store)
bench.command()(view)
bench.command()(tables)
bench.command()(simulate)
bench.command()(models)
bench.command()(truth)
bench.command()(planted)
bench.command()(evidence)
bench.command()(audit)
bench.command()(throughput)
bench.command()(race)
bench.command()(torchcam)

Arch = Annotated[list[str] | None, typer.Option(help="torchvision network, repeatable; MobileNetV2 by default")]
Weights = Annotated[str | None, typer.Option(help="torchvision weights of the networks; random by default")]
Crop = Annotated[int, typer.Option(min=32, help="side of the network's input, in pixels")]


@bench.command()
def engine(
    arch: Annotated[list[str] | None, typer.Option(help="torchvision network, repeatable; MobileNetV2 and ResNet-50 by default")] = None,
    weights: Weights = None,
    images: Annotated[int, typer.Option(min=1, help="images whose masks are optimised together")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="paired measurements of bare network and engine, in turn")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps per mask")] = 10,
    threads: Threads = None,
    crop: Crop = 224,
    as_json: Json = False,
) -> None:
    """Compare the mask optimiser with the bare network and with sequential masks."""
    from pipeline.execution.cluster import reexec_with_worker_env

    reexec_with_worker_env()
    from benchmarks.engine import bench_engine
    from hdm_core.methods.presets import DM_PRESETS

    settings = DM_PRESETS["fast"].model_copy(update={"steps": steps})
    inputs = _random_images(images, crop, threads)
    results = []
    for name in arch or ["mobilenet_v2", "resnet50"]:
        err.print(f"{name}: {pairs} pairs ...", markup=False)
        results.append(bench_engine(_classifier(name, weights), inputs, settings, pairs).as_dict())
    _print_results("engine", results, as_json)


@bench.command()
def metrics(
    arch: Arch = None,
    weights: Weights = None,
    images: Annotated[int, typer.Option(min=1, help="images that are measured together")] = 2,
    maps: Annotated[int, typer.Option(min=1, help="maps per image, as from this many methods")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="paired measurements of bare network and metrics, in turn")] = 5,
    threads: Threads = None,
    crop: Crop = 224,
    as_json: Json = False,
) -> None:
    """Compare the metrics, by either protocol, with the bare forwards that they need."""
    from pipeline.execution.cluster import reexec_with_worker_env

    reexec_with_worker_env()
    from benchmarks.metrics import bench_metrics
    from hdm_core import MetricSettings

    inputs = _random_images(images, crop, threads)
    results = []
    for name in arch or ["mobilenet_v2"]:
        classifier = _classifier(name, weights)
        for protocol in ("paper", "rise"):
            err.print(f"{name}, {protocol}: {pairs} pairs ...", markup=False)
            results.append(bench_metrics(classifier, inputs, maps, MetricSettings(protocol=protocol), pairs).as_dict())
    _print_results("metrics", results, as_json)


@bench.command()
def memory(
    arch: Annotated[str, typer.Option(help="torchvision network")] = "mobilenet_v2",
    weights: Weights = None,
    calls: Annotated[int, typer.Option(min=2, help="calls, of explain and evaluate in turn")] = 5000,
    images: Annotated[int, typer.Option(min=1, help="images per call")] = 1,
    threads: Threads = None,
    crop: Crop = 32,
    as_json: Json = False,
) -> None:
    """Measure memory at start, middle and end of many calls in one process."""
    from pipeline.execution.cluster import reexec_with_worker_env

    reexec_with_worker_env()
    from benchmarks.memory import bench_memory

    result = bench_memory(
        _classifier(arch, weights), _random_images(images, crop, threads), calls, lambda line: err.print(line, markup=False)
    )
    if as_json:
        print_json({"memory": result.as_dict()})
    else:
        out.print(memory_table(result))


@bench.command()
def methods(
    weights: Weights = None,
    images: Annotated[int, typer.Option(min=1, help="images that are explained together; costly methods take one")] = 4,
    pairs: Annotated[int, typer.Option(min=1, help="paired measurements of library and method, in turn")] = 3,
    only: Annotated[str | None, typer.Option(help="methods, separated by commas; by default all that a library has")] = None,
    threads: Threads = None,
    crop: Crop = 224,
    as_json: Json = False,
) -> None:
    """Compare methods on MobileNetV2 with the fastest library that has each.

    RISE, which no library has, is compared with a plain loop.
    """
    from pipeline.execution.cluster import reexec_with_worker_env

    reexec_with_worker_env()
    from benchmarks.methods import bench_method, comparable_methods

    selected = comparable_methods(None if only is None else only.split(","))
    inputs, classifier = _random_images(images, crop, threads), _classifier("mobilenet_v2", weights)
    results = []
    for name in selected:
        err.print(f"{name}: {pairs} pairs ...", markup=False)
        results.append(bench_method(classifier, inputs, name, pairs))
    if as_json:
        print_json({"methods": [result.as_dict() for result in results]})
    else:
        out.print(methods_table(results))


@bench.command()
def pareto(
    cases: Annotated[list[str], typer.Argument(metavar="CONFIG...", help="configurations; dataset and classifier of each are one case")],
    output: Annotated[str, typer.Option(help="folder for the figures")] = ".",
    split: Annotated[str, typer.Option(help="half of the photographs: choose or report")] = "report",
    photographs: Annotated[int, typer.Option(min=2, help="photographs per case, spread over the classifier's confidence")] = 12,
    only: Annotated[str | None, typer.Option(help="candidates, separated by commas; by default all that are not costly")] = None,
    as_json: Json = False,
) -> None:
    """Compare candidate settings on the same photographs: quality against passes."""
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
    selected = candidates(None if only is None else only.split(","))

    def show(name: str) -> ProgressCallback:
        return throttle(30, lambda progress: err.print(f"{name}: {progress.line()}", markup=False, highlight=False))

    points, figures = [], {}
    for config in configs:
        stores = run_case(config, selected, split, photographs, show)
        points += compare(config.name, stores)
        figures[f"{config.name}-{split}-maps.png"] = maps_figure(stores)
    figures[f"pareto-{split}.png"] = pareto_figure(points)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        (folder / name).write_bytes(figure)
    if as_json:
        facts = {"split": split, "points": [asdict(point) for point in points], "pictures": [str(folder / name) for name in figures]}
        print_json(facts)
    else:
        out.print(points_table(points))
        out.print(*(str(folder / name) for name in figures), sep="\n", markup=False, soft_wrap=True)


def _random_images(images: int, crop: int, threads: int | None) -> Tensor:
    """Draw random images (images, 3, crop, crop) on the network's device.

    Neither speed nor agreement depends on their content.
    """
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


def _print_results(name: str, results: list[dict[str, Any]], as_json: bool) -> None:
    print_json({name: results}) if as_json else out.print(networks_table(results))


def main() -> None:
    """Run one benchmark; bad input is reported in one line, with exit code 2."""
    accept_any_encoding()
    try:
        bench(prog_name="python -m benchmarks")
    except InputError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        sys.exit(2)
