"""The command `hdm`."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from pipeline.bench.cli import bench
from pipeline.errors import InputError, RunError, one_line
from pipeline.training.command import train

DONE, FAILED, BAD_INPUT, UNEXPLAINED = 0, 1, 2, 3

app = typer.Typer(
    help="Explains every image of a dataset.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(bench, name="bench")
app.command()(train)

_log = logging.getLogger("pipeline")

_out = Console(width=None if sys.stdout.isatty() else 200)
_err = Console(stderr=True, width=None if sys.stderr.isatty() else 200)

Config = Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help="a YAML file, or the name of a preset such as demo")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="the run's folder or URL, the one that holds run.json")]
Output = Annotated[str | None, typer.Option(help="where runs are kept: a folder or a URL")]
Root = Annotated[str | None, typer.Option(help="the dataset's root, for presets that have none")]
Limit = Annotated[int | None, typer.Option(min=1, help="at most so many images")]
Shown = Annotated[int, typer.Option("--limit", min=1, help="at most so many images on the page")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key, such as compute.workers=2")]
Json = Annotated[bool, typer.Option("--json", help="facts as one JSON object on standard output")]


@app.command()
def run(config: Config, output: Output = None, root: Root = None, limit: Limit = None, set_: Set = None, as_json: Json = False) -> None:
    """Explain a dataset; running it again goes on where it was."""
    from pipeline.run import plan_run
    from pipeline.training.first import training_before
    from pipeline.training.progress import on_console
    from pipeline.training.run import train as train_classifier

    configuration = _config(config, output, root, limit, set_)
    if (training := training_before(configuration)) is not None:
        _log.info("%s is not trained yet: %s comes first", configuration.classifier.path, configuration.classifier.train)
        with on_console(_err) as show:
            train_classifier(training, show)
    plan, store = plan_run(configuration)
    _explain(plan, store, as_json)


@app.command()
def plan(config: Config, output: Output = None, root: Root = None, limit: Limit = None, set_: Set = None, as_json: Json = False) -> None:
    """Say what a run would do and take: its workers are started, measure a few passes and leave nothing."""
    from pipeline.cost import measure_cost
    from pipeline.plan import make_plan
    from pipeline.progress import clock

    planned = make_plan(_config(config, output, root, limit, set_))
    cost = measure_cost(planned)
    if as_json:
        _print_json({**planned.facts(), **asdict(cost)})
        return
    each = ", ".join(f"{method} {n:,}" for method, n in planned.passes_per_image.items())
    rates = f"{cost.seconds_per_pass * 1e3:.3g} ms a pass, {cost.seconds_per_forward * 1e3:.3g} ms a forward pass"
    _facts(
        {
            "run": f"{planned.config.output}/{planned.config.name}",
            "images": f"{len(planned.samples):,} in {len(planned.shards):,} shards of {planned.config.compute.shard_size}",
            "passes": f"{cost.passes:,} ({each} an image), and {cost.forwards:,} forward passes for the metrics",
            "maps": f"{planned.bytes / 2**20:,.1f} MiB before compression",
            "time": f"{clock(cost.seconds)} with {cost.workers} workers on {cost.device} ({rates}, measured)",
            "work": f"{cost.worker_hours:,.2f} worker-hours",
            **{f"{gpu}, estimate": f"{hours:,.2f} GPU-hours, from published throughput" for gpu, hours in cost.gpu_hours.items()},
        }
    )


@app.command()
def status(run: Run, as_json: Json = False) -> None:
    """Say how far a run is."""
    from collections import Counter

    store = _open(run)
    info, done = store.info(), store.done()
    statuses = Counter(store.records()["status"].to_pylist())
    facts = {"run": store.url, "images": info["images"], "shards": info["shards"], "shards_done": len(done), "records": dict(statuses)}
    if as_json:
        _print_json(facts)
        return
    state = "done" if len(done) == info["shards"] else "not done; run it again to go on"
    records = ", ".join(f"{count} {name}" for name, count in sorted(statuses.items())) or "none"
    _facts({"run": store.url, "images": info["images"], "shards": f"{len(done)} of {info['shards']} ({state})", "records": records})


@app.command()
def verify(run: Run, as_json: Json = False) -> None:
    """Read all of a run and compare its checksums; says which shards are damaged."""
    from pipeline.store.verify import verify as compare

    store = _open(run)
    verdict = compare(store)
    if as_json:
        _print_json({"run": store.url, **asdict(verdict)})
    else:
        _facts({"run": store.url, "shards": verdict.shards, "objects": verdict.objects, "damaged shards": len(verdict.damaged)})
        for index, wrongs in verdict.damaged.items():
            _err.print(f"shard {index}: {'; '.join(wrongs)}", markup=False)
    if verdict.damaged:
        if not as_json:
            _err.print(f"hdm repair {run} does them again", markup=False)
        raise typer.Exit(FAILED)


@app.command()
def repair(run: Run, as_json: Json = False) -> None:
    """Do a run's damaged and missing shards again."""
    from pipeline.store.verify import forget
    from pipeline.store.verify import verify as compare

    store = _open(run)
    verdict = compare(store)
    plan, store = _replan(store)
    forget(store, verdict)
    _log.info("%d of %d committed shards are damaged", len(verdict.damaged), verdict.shards)
    _explain(plan, store, as_json)


@app.command()
def tables(
    run: Run,
    format_: Annotated[Literal["text", "markdown", "latex", "csv"], typer.Option("--format", help="how they are written")] = "text",
    as_json: Json = False,
) -> None:
    """Print the paper's Tables 1, 2 and 3 of a run; of HDM and DM alone, its ablation."""
    from pipeline.paper import FORMATS, paper_tables, to_rich
    from pipeline.tables import aggregate

    store = _open(run)
    table = aggregate(store)
    if as_json:
        _print_json({"run": run, "tables": table.to_pylist()})
        return
    laid_out = paper_tables(table, store.info()["name"])
    _out.print(to_rich(laid_out)) if format_ == "text" else sys.stdout.write(FORMATS[format_](laid_out))


@app.command()
def report(
    run: Run, limit: Annotated[int, typer.Option(min=1, help="at most so many images on the page")] = 24, as_json: Json = False
) -> None:
    """Write a run's page of pictures and numbers."""
    from pipeline.report import write_report

    page = write_report(_open(run), limit)
    _print_json({"report": page}) if as_json else _out.print(page, markup=False, soft_wrap=True)


@app.command()
def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a photograph, local or a URL")],
    method: Annotated[str, typer.Option(help="an id that `hdm methods` lists")] = "hdm",
    out: Annotated[str, typer.Option(help="where the heatmap goes, .png or .jpg")] = "heatmap.png",
    preset: Annotated[str | None, typer.Option(help="a preset of the method")] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|YAML", help="a trained folder, or the section of a configuration such as '{source: exported, path: model.pt2}'"
        ),
    ] = None,
    arch: Annotated[str, typer.Option(help="a torchvision classification network")] = "mobilenet_v2",
    weights: Annotated[str, typer.Option(help="its weights")] = "IMAGENET1K_V1",
    target: Annotated[int | None, typer.Option(help="the class to explain; the predicted one if not given")] = None,
    as_json: Json = False,
) -> None:
    """Explain one photograph."""
    from pipeline.loading import load_section
    from pipeline.single import explain_image

    section = load_section(classifier if classifier is not None else {"arch": arch, "weights": weights})
    facts = explain_image(image, out, section, method=method, preset=preset, target=target)
    _print_json(facts) if as_json else _facts(facts)


@app.command()
def methods(as_json: Json = False) -> None:
    """List the methods and their presets."""
    from hdm_core import METHODS

    entries = [
        {"id": m.id, "title": m.title, "presets": list(m.presets), "default": m.default, "source": m.source} for m in METHODS.values()
    ]
    if as_json:
        _print_json({"methods": entries})
        return
    table = Table("id", "presets", "source", box=None)
    for method in METHODS.values():
        table.add_row(method.id, ", ".join(method.presets), method.source)
    _out.print(table)


def main() -> None:
    """Runs the command; a user's mistake becomes one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=_err, show_path=False, show_time=False)])
    logging.getLogger("pipeline").setLevel(logging.INFO)
    try:
        app()
    except InputError as error:
        _fail(str(error), BAD_INPUT)
    except RunError as error:
        _fail(f"{error}; run it again to go on where it was", FAILED)
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _config(source: str | dict[str, Any], output: str | None, root: str | None, limit: int | None, assignments: list[str] | None) -> Any:
    from pipeline.loading import load_config, parse_changes

    given = {"output": output, "dataset.root": root, "dataset.limit": limit}
    return load_config(source, {**parse_changes(assignments or []), **{key: value for key, value in given.items() if value is not None}})


def _explain(plan: Any, store: Any, as_json: bool) -> None:
    """Runs what is planned, aggregates, and prints what came of it."""
    from pipeline.progress import clock, on_console
    from pipeline.report import write_report
    from pipeline.run import explain_run
    from pipeline.tables import aggregate

    _log.info("%s: %d images in %d shards, %d passes; %s", plan.config.name, len(plan.samples), len(plan.shards), plan.passes, store.url)
    with on_console(_err) as show:
        outcome = explain_run(plan, store, show)
    table = aggregate(store)
    page = write_report(store)
    for item in outcome.set_aside:
        _err.print(f"shard {item.shard.index} (rows {item.shard.start}-{item.shard.stop - 1}) was set aside: {item.error}", markup=False)
    if as_json:
        _print_json(
            {
                "run": store.url,
                "report": page,
                "images": outcome.images,
                "shards": outcome.shards,
                "resumed": outcome.resumed,
                "passes": outcome.passes,
                "seconds": round(outcome.seconds, 3),
                "statuses": outcome.statuses,
                "set_aside": [item.shard.index for item in outcome.set_aside],
                "tables": table.to_pylist(),
            }
        )
    else:
        _print_tables(table)
        _facts({"images": outcome.images, "passes": f"{outcome.passes:,} in {clock(outcome.seconds)}", "run": store.url, "report": page})
    if outcome.unexplained:
        _err.print(f"{outcome.unexplained} images could not be explained: see the records' status and error", markup=False)
        raise typer.Exit(UNEXPLAINED)


def _open(run: str) -> Any:
    from pipeline.store import RunStore

    return RunStore.open(run)


def _replan(store: Any) -> tuple[Any, Any]:
    """The plan of a run that is there, from its own configuration, wherever the run now lies."""
    from pipeline.run import plan_run

    config = {**store.info()["config"], "output": store.url.rpartition("/")[0]}
    return plan_run(_config(config, None, None, None, None))


def _print_json(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")


def _facts(facts: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        table.add_row(name, Text(str(value), overflow="fold"))
    _out.print(table)


def _print_tables(table: Any) -> None:
    from pipeline.tables import layout_table

    head, rows = layout_table(table)
    shown = Table(*head, box=None)
    for row in rows:
        shown.add_row(*row)
    _out.print(shown)
    _out.print("mean ± half of the 95% interval; * the best; ↓ less is better, ↑ more is better", markup=False)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"hdm: {one_line(Exception(message), 2000)}\n")
    sys.exit(code)
