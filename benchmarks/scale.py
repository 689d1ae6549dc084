"""The commands `python -m benchmarks pool`, `plan` and `store`: does it hold for a million images?"""

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
    workers: Annotated[str, typer.Option(help="how many sleep at once, by commas")] = "1,4,16,64",
    image_seconds: Annotated[float, typer.Option(min=0.001, help="how long a worker sleeps for an image")] = 0.5,
    shard_size: Annotated[int, typer.Option(min=1, help="images a shard")] = 64,
    shards_a_worker: Annotated[int, typer.Option(min=1, help="shards that every worker sleeps for")] = 4,
    images: Annotated[int, typer.Option(min=1, help="images that take no time, with two workers")] = 10_000,
    output: Annotated[
        str | None, typer.Option(help="write and commit these images below this folder or URL, too; they are removed")
    ] = None,
    side: Annotated[int, typer.Option(min=1, help="side of the maps that are written")] = 224,
    as_json: Json = False,
) -> None:
    """The pool of workers with their work replaced by a sleep, by nothing, and by writing alone."""
    from benchmarks.pool import bench_sleep, bench_write
    from pipeline.execution.cluster import cluster

    results = []
    for count in _counts(workers):
        err.print(f"{count} workers sleep ...", markup=False)
        results.append(bench_sleep(count, count * shards_a_worker, shard_size, image_seconds))
    with cluster(None, cpus=2):
        err.print("2 workers do nothing ...", markup=False)
        results.append(bench_sleep(2, -(-images // shard_size), shard_size, 0.0))
        if output is not None:
            err.print("2 workers write ...", markup=False)
            results.append(bench_write(output, 2, images, shard_size, side))
    facts = [result.as_dict() for result in results]
    print_json({"pool": facts}) if as_json else out.print(_table(facts))


def plan(
    rows: Annotated[int, typer.Option(min=2, help="images of the manifest")] = 1_000_000,
    shard_size: Annotated[int, typer.Option(min=1, help="images a shard")] = 256,
    as_json: Json = False,
) -> None:
    """A manifest of very many images: planned, laid out on a disk, and resumed half done."""
    from benchmarks.plan import bench_plan

    with tempfile.TemporaryDirectory(prefix="hdm-bench-") as folder:
        facts = bench_plan(rows, shard_size, Path(folder)).as_dict()
    if as_json:
        print_json({"plan": facts})
        return
    out.print(_table(facts["steps"]))
    out.print(f"{rows:,} images, {facts['seconds']:.1f} s, at most {facts['peak_mib']:,.0f} MiB", markup=False, highlight=False)


def store(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run with maps: its folder or URL")],
    url: Annotated[str | None, typer.Option(help="try the layouts at this place, too, such as s3://bucket/folder")] = None,
    images: Annotated[int, typer.Option(min=1, help="images of the run, at most")] = 32,
    maps: Annotated[int, typer.Option(min=16, help="maps that every layout holds")] = 1024,
    as_json: Json = False,
) -> None:
    """A run's own maps in other types, codecs, chunks and shards: bytes, speed, and what one map costs to read."""
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
