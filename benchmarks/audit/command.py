"""Command `audit`: shortcuts that are known, and memory on many maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json
from pipeline.errors import InputError

if TYPE_CHECKING:
    from benchmarks.audit.case import Case
    from benchmarks.audit.summary import AuditSummary

_FRACTIONS = (1.0, 0.3)
_CLEAN = 4  # trainings without a shortcut


def audit(
    root: Annotated[str | None, typer.Argument(help="folder of the photographs")] = None,
    dataset: Annotated[str, typer.Option(help="kind of the dataset, such as cub")] = "cub",
    classes: Annotated[int, typer.Option(min=2, help="classes of a network")] = 5,
    per_class: Annotated[int, typer.Option(min=5, help="photographs of a class, each also mirrored")] = 16,
    kinds: Annotated[str | None, typer.Option(help="of shortcuts, separated by commas, or clean; all by default")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="of the training")] = 8,
    tested: Annotated[int, typer.Option(min=3, help="images of a class, and of others, in a causal test")] = 16,
    output: Annotated[str, typer.Option(help="folder of networks and results; a network with a result is not run again")] = "audit",
    synthetic: Annotated[int | None, typer.Option(min=10, help="audit this many synthetic maps instead: memory and time")] = None,
    synthetic_classes: Annotated[int, typer.Option(min=2, help="classes of the synthetic maps")] = 100,
    as_json: Json = False,
) -> None:
    """Score `hdm audit` on MobileNetV2 trained on photographs with planted shortcuts."""
    if synthetic is not None:
        from benchmarks.audit.synthetic import bench_synthetic

        print_json({"audit": bench_synthetic(synthetic, synthetic_classes, lambda line: err.print(line, markup=False))})
        return
    if root is None:
        raise InputError("name the folder of the photographs, or --synthetic")
    from benchmarks.audit.case import run_case
    from benchmarks.audit.photographs import read_photographs
    from benchmarks.audit.summary import summarise
    from pipeline.audit import AuditSettings

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / "results.jsonl"
    results = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    done = {result["name"] for result in results}
    for case in _cases(None if kinds is None else kinds.split(",")):
        if case.name in done:
            continue
        photographs = read_photographs(dataset, root, case.block * classes, classes, per_class)
        result = json.loads(json.dumps(run_case(case, photographs, folder, epochs, AuditSettings(tested=tested)).as_dict()))
        results.append(result)
        with lines.open("a") as file:
            file.write(f"{json.dumps(result)}\n")
        err.print(_line(result), markup=False, highlight=False, soft_wrap=True)
    summary = summarise(results)
    print_json({"audit": summary.as_dict()}) if as_json else _print(summary)


def _cases(kinds: list[str] | None) -> list[Case]:
    """List the networks: clean ones first, for the drift from them.

    Two blocks of classes take turns.
    """
    from benchmarks.audit.case import Case
    from benchmarks.audit.marks import MARKS
    from pipeline.errors import suggest

    known = ("clean", *MARKS)
    for kind in kinds or ():
        if kind not in known:
            raise InputError(f"--kinds {kind}: no such kind{suggest(kind, known, list_all=True)}")
    cases = [Case(number % 2, None, 0.0, 0, number) for number in range(_CLEAN)]
    for first, fraction in enumerate(_FRACTIONS):
        for number, kind in enumerate(MARKS):
            cases.append(Case((number + first) % 2, kind, fraction, number, 10 + number))
    return [case for case in cases if kinds is None or (case.kind or "clean") in kinds]


def _line(result: dict[str, Any]) -> str:
    found = {each["class_name"] + ("*" if each["poisoned"] else ""): each["confirmed"] for each in result["classes"] if each["confirmed"]}
    learnt = "" if result["learnt"] is None else f", learnt {result['learnt']:+.2f}"
    return f"{result['name']}: {result['seconds']:.0f} s, accuracy {result['accuracy']:.2f}{learnt}, iou {result['iou']}, confirmed {found}"


def _print(summary: AuditSummary) -> None:
    from benchmarks.audit.summary import SCORES

    table = Table("kind", "networks", "learnt", *(f"AUROC {name}" for name in SCORES), "confirmed", "at its place", "IoU", box=None)
    for row in summary.rows:
        areas = ["-" if row.auroc[name] is None else f"{row.auroc[name]:.2f}" for name in SCORES]
        iou = "-" if row.iou is None else f"{row.iou:.2f}"
        table.add_row(row.kind, str(row.networks), str(row.learnt), *areas, str(row.confirmed), str(row.named), iou)
    out.print(table)
    for what, number, places, backgrounds in (
        ("classes of clean networks", summary.clean_classes, summary.place_alarms, summary.background_alarms),
        ("other classes", summary.other_classes, summary.other_place_alarms, summary.other_background_alarms),
    ):
        line = f"{what}: {places} of {number} with a confirmed place, {backgrounds} with a confirmed background"
        out.print(line, markup=False, highlight=False)
