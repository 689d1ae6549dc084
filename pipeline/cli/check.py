"""Command `hdm check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json, Limit, Root, Set, given_changes
from pipeline.errors import InputError

if TYPE_CHECKING:
    from hdm_core import CheckResult

Source = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG|CLASSIFIER",
        help="a YAML file or preset of a run; or a classifier: a trained folder, or a section such as '{source: timm, arch: resnet50}'",
    ),
]

_COLOURS = {"ok": "green", "handled": "cyan", "doubtful": "yellow", "refused": "red"}


def check(source: Source, root: Root = None, limit: Limit = None, set_: Set = None, as_json: Json = False) -> None:
    """Check what explanations assume of a classifier, before a run does.

    A run's configuration is checked on some of its photographs and for its methods, a classifier on noise and for all methods. The exit
    code is 2 if a run would be refused, or no method is left.
    """
    result, is_refused = _check(source, {"dataset.root": root, "dataset.limit": limit}, set_)
    if as_json:
        print_json(result.as_dict())
    else:
        _print(result)
    if is_refused:
        raise typer.Exit(2)


def _check(source: str, options: dict[str, object], assignments: list[str] | None) -> tuple[CheckResult, bool]:
    import hdm_core
    from pipeline.classifiers.load import check_class_names, load_classifier
    from pipeline.config.load import load_config, load_section
    from pipeline.datasets import list_samples
    from pipeline.preflight import read_photographs

    changes = given_changes(options, assignments)
    if _is_classifier(source):
        if changes:
            raise InputError(f"{source} is a classifier: {', '.join(changes)} can be changed of a configuration only")
        section = load_section(source)
        classifier = load_classifier(section, seed=0)
        result = hdm_core.check(classifier)
        is_refused = not result.usable
    else:
        config = load_config(source, changes)
        section, samples = config.classifier, list_samples(config.dataset, config.storage)
        classifier = load_classifier(section, config.seed)
        photographs = read_photographs(classifier, samples, config.storage, config.compute.storage_timeout)
        result = hdm_core.check(classifier, photographs, config.settings)
        is_refused = bool(result.refused)
    if result.classes is not None:
        check_class_names(section, classifier, result.classes)
    return result, is_refused


def _is_classifier(source: str) -> bool:
    """Return whether a text names a classifier: a folder, or a section in braces."""
    return source.lstrip().startswith("{") or Path(source).expanduser().is_dir()


def _print(result: CheckResult) -> None:
    """Print the findings as a table, and in one line what follows."""
    images = f"{result.photographs} photographs and noise" if result.photographs else "noise"
    out.print(f"{result.classifier}, checked on {images}", markup=False)
    table = Table("check", "verdict", "finding", "methods", box=None)
    for finding in result.findings:
        verdict = Text(finding.verdict, style=_COLOURS[finding.verdict])
        methods = ", ".join(finding.methods) or "all"
        table.add_row(finding.subject, verdict, Text(finding.text, overflow="fold"), Text(methods, overflow="fold"))
    out.print(table)
    refused = [method for method in result.methods if method not in result.usable]
    if not refused:
        out.print(f"all {len(result.methods)} methods can explain this classifier", markup=False)
    else:
        err.print(f"refused: {', '.join(refused)}; left: {', '.join(result.usable) or 'none'}", markup=False)
