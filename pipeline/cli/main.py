"""Command `hdm`."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.logging import RichHandler
from rich.table import Table

import pipeline
from pipeline.cli.audit import audit
from pipeline.cli.check import check
from pipeline.cli.console import accept_any_encoding, err, out, print_facts, print_json
from pipeline.cli.diff import diff
from pipeline.cli.execute import BAD_INPUT, FAILED, console_steps, print_summary
from pipeline.cli.export import export
from pipeline.cli.log import log
from pipeline.cli.measure import measure
from pipeline.cli.metrics import metrics
from pipeline.cli.options import Config, Json, Limit, Output, Root, Run, Set, configuration
from pipeline.cli.reexplain import reexplain
from pipeline.cli.repair import repair, verify
from pipeline.cli.sanity import sanity
from pipeline.cli.shares import print_shares
from pipeline.cli.status import status
from pipeline.cli.tables import tables
from pipeline.cli.train import train
from pipeline.cli.view import view
from pipeline.environment import bypass_proxies_on_loopback
from pipeline.errors import InputError, RunError, device_failure, one_line

if TYPE_CHECKING:
    from pipeline.runs import RunStore

app = typer.Typer(
    help="Explain every image of a dataset.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command()(check)
app.command()(sanity)
app.command()(train)
app.command()(reexplain)
app.command()(measure)
app.command()(diff)
app.command()(audit)
app.command()(view)
app.command()(verify)
app.command()(repair)
app.add_typer(export, name="export")
app.add_typer(log, name="log")


@app.command()
def run(config: Config, output: Output = None, root: Root = None, limit: Limit = None, set_: Set = None, as_json: Json = False) -> None:
    """Explain a dataset; the same command again resumes the run."""
    from pipeline.monitoring.progress import progress_bar
    from pipeline.workflow import run_steps

    run_config = configuration(config, output, root, limit, set_)
    with progress_bar(err) as on_progress:
        summary = run_steps(run_config, console_steps(on_progress))
    if summary is not None:
        print_summary(summary, as_json)


@app.command()
def plan(
    config: Config,
    output: Output = None,
    root: Root = None,
    limit: Limit = None,
    set_: Set = None,
    shares: Annotated[
        str | None, typer.Option(metavar="SHARE,...", help="measure instead how fast workers with these shares of a GPU are: 1,0.5,0.25")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what a run would do and cost.

    Its workers start and measure a few passes; nothing is written. With --shares they explain a batch, in a folder that is removed.
    """
    from pipeline.execution.cost import measure_cost
    from pipeline.execution.memory import predict_memory
    from pipeline.execution.shares import parse_shares
    from pipeline.monitoring.progress import clock
    from pipeline.plan import make_plan

    if shares is not None:
        chosen = parse_shares(shares)
        print_shares(make_plan(configuration(config, output, root, limit, set_)), chosen, as_json)
        return
    planned = make_plan(configuration(config, output, root, limit, set_))
    memory = predict_memory(planned)
    cost = measure_cost(planned)
    if as_json:
        print_json({**planned.as_dict(), **asdict(cost), "memory": asdict(memory)})
        return
    passes_per_image = ", ".join(f"{method} {n:,}" for method, n in planned.passes_per_image.items())
    if planned.evidence_passes:
        passes_per_image += f", evidence at most {planned.evidence_passes:,}"
    rates = f"{cost.seconds_per_pass * 1e3:.3g} ms per pass, {cost.seconds_per_forward * 1e3:.3g} ms per forward pass"
    print_facts(
        {
            "run": f"{planned.config.output}/{planned.config.name}",
            "images": f"{len(planned.samples):,} in {len(planned.shards):,} shards of {planned.config.compute.shard_size}",
            "passes": f"{cost.passes:,} ({passes_per_image} per image), and {cost.metric_forwards:,} forward passes for the metrics, "
            f"{cost.forwards - cost.metric_forwards:,} for targets and baselines",
            "memory": memory.text(),
            "maps": f"{planned.bytes / 2**20:,.1f} MiB before compression",
            "time": f"{clock(cost.seconds)} with {cost.workers} workers on {cost.device} ({rates}, measured)",
            "work": f"{cost.worker_hours:,.2f} worker-hours",
            **({} if cost.fastest_batch == cost.batch else {"faster": f"compute.batch_size={cost.fastest_batch}, now {cost.batch}"}),
            **{f"{gpu}, estimate": f"{hours:,.2f} GPU-hours, from published throughput" for gpu, hours in cost.gpu_hours.items()},
        }
    )


app.command()(status)
app.command()(tables)


@app.command()
def report(
    run: Run, limit: Annotated[int, typer.Option(min=1, help="maximum number of images on the page")] = 24, as_json: Json = False
) -> None:
    """Write the page with a run's maps and metrics."""
    from pipeline.report import write_report

    page = write_report(_open(run), limit)
    print_json({"report": page}) if as_json else out.print(page, markup=False, soft_wrap=True)


@app.command()
def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a photograph, a local path or a URL")],
    method: Annotated[str, typer.Option(help="an id that `hdm methods` lists")] = "hdm",
    out: Annotated[str, typer.Option(help="the file of the heatmap, .png or .jpg")] = "heatmap.png",
    preset: Annotated[str | None, typer.Option(help="a preset of the method")] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|YAML", help="a trained folder, or a section of a configuration such as '{source: exported, path: model.pt2}'"
        ),
    ] = None,
    arch: Annotated[str, typer.Option(help="a torchvision classification network")] = "mobilenet_v2",
    weights: Annotated[str, typer.Option(help="its weights")] = "IMAGENET1K_V1",
    target: Annotated[int | None, typer.Option(help="the class to explain; the predicted one if not given")] = None,
    evidence: Annotated[bool, typer.Option("--evidence", help="find the sets of pixels that each suffice for the class as well")] = False,
    signed: Annotated[bool, typer.Option("--signed", help="draw the signed map as well, of a method that has one")] = False,
    as_json: Json = False,
) -> None:
    """Explain one photograph."""
    from hdm_core import EvidenceSettings
    from pipeline.cli.explain import evidence_lines, explain_image
    from pipeline.config.load import load_section

    section = load_section(classifier if classifier is not None else {"arch": arch, "weights": weights})
    search = EvidenceSettings() if evidence else None
    facts = explain_image(image, out, section, method=method, preset=preset, target=target, evidence=search, signed=signed)
    if as_json:
        print_json(facts)
        return
    found = facts.pop("evidence", None)
    print_facts({**facts, **(evidence_lines(found) if found else {})})


@app.command()
def methods(as_json: Json = False) -> None:
    """List the methods and their presets."""
    from hdm_core import METHODS

    entries = [
        {"id": m.id, "title": m.title, "presets": list(m.presets), "default": m.default, "source": m.source} for m in METHODS.values()
    ]
    if as_json:
        print_json({"methods": entries})
        return
    table = Table("id", "presets", "source", box=None)
    for method in METHODS.values():
        table.add_row(method.id, ", ".join(method.presets), method.source)
    out.print(table)


app.command()(metrics)


def main() -> None:
    """Run the command; a mistake of the user becomes one line and exit code 2."""
    accept_any_encoding()
    if Path(pipeline.__file__).resolve().parent != Path(__file__).resolve().parents[1]:
        _fail(f"{pipeline.__file__} is another package named pipeline, found before hdm's own; take its folder off PYTHONPATH", BAD_INPUT)
    try:
        Path.cwd()
    except FileNotFoundError:  # Intel's library, with which torch computes, ends the process without a reason
        _fail("the current folder no longer exists; change to another one", BAD_INPUT)
    bypass_proxies_on_loopback(os.environ)  # for S3 and other servers on this machine; Ray's workers inherit it
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=err, show_path=False, show_time=False)])
    logging.getLogger("pipeline").setLevel(logging.INFO)
    try:
        app()
    except InputError as error:
        _fail(str(error), BAD_INPUT)
    except RunError as error:
        _fail(f"{error}; run it again to resume it", FAILED)
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        from hdm_core.device_errors import is_fatal

        if not is_fatal(error):
            raise
        _fail(f"{device_failure(error)}; run it again", FAILED)


def _open(run: str) -> RunStore:
    from pipeline.runs import RunStore

    return RunStore.open(run)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"hdm: {one_line(Exception(message), 2000)}\n")
    sys.exit(code)
