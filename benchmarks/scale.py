"""Commands `pool`, `plan`, `store`, `view`, `tables` and `simulate`: large runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json


def pool(
    workers: Annotated[str, typer.Option(help="numbers of sleeping workers to measure, separated by commas")] = "1,4,16,64",
    image_seconds: Annotated[float, typer.Option(min=0.001, help="seconds that a worker sleeps per image")] = 0.5,
    shard_size: Annotated[int, typer.Option(min=1, help="images per shard")] = 64,
    shards_per_worker: Annotated[
        int, typer.Option("--shards-per-worker", "--shards-a-worker", min=1, help="shards that every worker sleeps for")
    ] = 4,
    images: Annotated[int, typer.Option(min=1, help="images of the measurements without a sleep, with two workers")] = 10_000,
    output: Annotated[
        str | None, typer.Option(help="also write and commit these images below this folder or URL; they are removed")
    ] = None,
    side: Annotated[int, typer.Option(min=1, help="side of the written maps, in pixels")] = 224,
    as_json: Json = False,
) -> None:
    """Measure the worker pool with work replaced by sleep, nothing, or writing alone."""
    from benchmarks.pool import bench_sleep, bench_write
    from pipeline.execution.cluster import cluster

    results = []
    for count in _counts(workers):
        err.print(f"{count} sleeping workers ...", markup=False)
        results.append(bench_sleep(count, count * shards_per_worker, shard_size, image_seconds))
    with cluster(None, cpus=2):
        err.print("2 workers without work ...", markup=False)
        results.append(bench_sleep(2, -(-images // shard_size), shard_size, 0.0))
        if output is not None:
            err.print("2 writing workers ...", markup=False)
            results.append(bench_write(output, 2, images, shard_size, side))
    facts = [result.as_dict() for result in results]
    print_json({"pool": facts}) if as_json else out.print(_table(facts))


def plan(
    rows: Annotated[int, typer.Option(min=2, help="images in the manifest")] = 1_000_000,
    shard_size: Annotated[int, typer.Option(min=1, help="images per shard")] = 256,
    as_json: Json = False,
) -> None:
    """Measure planning a very large manifest and resuming its half-done run."""
    from benchmarks.plan import bench_plan

    with tempfile.TemporaryDirectory(prefix="hdm-bench-") as folder:
        facts = bench_plan(rows, shard_size, Path(folder)).as_dict()
    if as_json:
        print_json({"plan": facts})
        return
    out.print(_table(facts["steps"]))
    out.print(
        f"{rows:,} images, {facts['seconds']:.1f} s, at most {facts['peak_mib']:,.0f} MiB and {facts['files_mib']:,.0f} MiB of libraries",
        markup=False,
        highlight=False,
    )


def store(
    run: Annotated[str, typer.Argument(metavar="RUN", help="folder or URL of a run with maps")],
    url: Annotated[str | None, typer.Option(help="also measure the layouts at this URL, such as s3://bucket/folder")] = None,
    images: Annotated[int, typer.Option(min=1, help="most images of the run to use")] = 32,
    maps: Annotated[int, typer.Option(min=16, help="maps that every layout holds")] = 1024,
    as_json: Json = False,
) -> None:
    """Measure a run's maps in other types, codecs, chunks and shards: size and speed."""
    from benchmarks.store import bench_store
    from pipeline.runs import RunStore
    from pipeline.storage.objects import Storage

    opened = RunStore.open(run)
    with tempfile.TemporaryDirectory(prefix="hdm-bench-") as folder:
        places = {"disk": Storage(folder)} | ({} if url is None else {"url": Storage(url)})
        facts = bench_store(opened, places, images, maps).as_dict()
    if as_json:
        print_json({"store": facts})
        return
    out.print(_table([{key: value for key, value in row.items() if key != "bytes_by_method"} for row in facts["codecs"]]))
    out.print(_table(facts["layouts"]))


def view(
    images: Annotated[int, typer.Option(min=1, help="images of the run")] = 1_000_000,
    shard_size: Annotated[int, typer.Option(min=1, help="images per shard")] = 1024,
    methods: Annotated[str, typer.Option(help="methods of the run, separated by commas: one record per image each")] = "hdm",
    as_json: Json = False,
) -> None:
    """Measure the pages of `hdm view` on a very large run."""
    from benchmarks.view import bench_view

    with tempfile.TemporaryDirectory(prefix="hdm-bench-") as folder:
        facts = bench_view(images, shard_size, tuple(methods.split(",")), Path(folder)).as_dict()
    if as_json:
        print_json({"view": facts})
        return
    out.print(_table([{"page": page, "seconds": seconds} for page, seconds in facts["pages"].items()]))
    text = f"first page {facts['first_page']:.2f} s, all {facts['records']:,} records read in {facts['read']:.1f} s"
    out.print(f"{text}, at most {facts['peak_mib']:,.0f} MiB and {facts['files_mib']:,.0f} MiB of libraries", markup=False, highlight=False)


def tables(
    images: Annotated[int, typer.Option(min=1, help="images of the run")] = 1_000_000,
    shard_size: Annotated[int, typer.Option(min=1, help="images per shard")] = 1024,
    methods: Annotated[str, typer.Option(help="methods of the run, separated by commas")] = "hdm,grad_cam,rise",
    as_json: Json = False,
) -> None:
    """Measure the tables and statistics of a very large run."""
    from benchmarks.finished import bench_finished

    with tempfile.TemporaryDirectory(prefix="hdm-bench-") as folder:
        facts = bench_finished(images, shard_size, tuple(methods.split(",")), Path(folder)).as_dict()
    if as_json:
        print_json({"tables": facts})
        return
    out.print(_table(facts["steps"]))
    out.print(f"{facts['records']:,} records; {facts['before_mib']:,.0f} MiB before the first step", markup=False, highlight=False)


def simulate(
    images: Annotated[str, typer.Option(help="numbers of images, separated by commas")] = "1000000,1000000000",
    gpus: Annotated[str, typer.Option(help="numbers of GPUs, separated by commas")] = "8,64,512,4096",
    image_seconds: Annotated[float, typer.Option(min=1e-6, help="seconds of a worker per image")] = 0.56,
    preemptions: Annotated[float, typer.Option(min=0, help="of a GPU per hour")] = 0.05,
    check: Annotated[bool, typer.Option("--check", help="compare with real runs of 1, 2 and 4 sleeping workers instead")] = False,
    as_json: Json = False,
) -> None:
    """Simulate runs on many GPUs: time, cost, requests, lost work and tail."""
    from benchmarks.simulation import Model
    from benchmarks.simulation import simulate as simulated

    if check:
        from benchmarks.simulation_check import check_simulation

        rows = [check_simulation(count).as_dict() for count in (1, 2, 4)]
    else:
        model = Model(image_seconds=image_seconds, preemptions_per_hour=preemptions)
        rows = [simulated(count, number, model).as_dict() for count in _counts(images) for number in _counts(gpus)]
    print_json({"simulate": rows}) if as_json else out.print(_table(rows))


def _counts(workers: str) -> list[int]:
    from pipeline.errors import InputError

    try:
        counts = [int(count) for count in workers.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise InputError(f"--workers {workers}: write whole numbers such as 1,4,16")
    return counts


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(*(name.replace("_", " ") for name in rows[0]), box=None)
    for row in rows:
        table.add_row(*map(_text, row.values()))
    return table


def _text(value: object) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " ".join(map(_text, value))
    return f"{value:,.4g}" if isinstance(value, float) else "" if value is None else str(value)
